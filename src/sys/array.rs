//! Growable arrays that move from the heap to a mapped file once they are large, so that their size is not bounded by memory.
//!
//! The file is allocated before it is mapped (writing to a hole on a full disk raises SIGBUS), only grows, and is private to the array,
//! whose content ends with it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::MmapMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest array kept on the heap if there is a file to move to, in bytes.
const SPILL: usize = 256 << 10;
/// Smallest growth of a file, in bytes; otherwise it grows by a quarter.
const STEP: usize = 1 << 20;

/// The backing file of one array. Dropping it removes the file.
pub trait ScratchFile: Send + Sync {
    /// The file, open for reading and writing.
    fn file(&self) -> &File;
    /// Extends the file to this many bytes, with allocated blocks.
    ///
    /// # Errors
    /// The disk is full or fails.
    fn grow(&mut self, length: u64) -> io::Result<()>;
}

/// Creates backing files for arrays.
pub trait ScratchPlace: Send + Sync {
    /// A new empty file.
    ///
    /// # Errors
    /// The disk fails.
    fn create(&self) -> io::Result<Box<dyn ScratchFile>>;
}

/// Where large arrays are stored. Cheap to clone.
#[derive(Clone, Default)]
pub struct Scratch(Option<Arc<dyn ScratchPlace>>);

impl Scratch {
    /// On the heap, for data that must not reach a disk. The caller bounds the size.
    pub fn memory() -> Self {
        Self(None)
    }

    /// In files created by `place`.
    pub fn on_disk(place: Arc<dyn ScratchPlace>) -> Self {
        Self(Some(place))
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Scratch(disk)" } else { "Scratch(memory)" })
    }
}

/// A type of which any bytes are a valid value, without padding.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static> Plain for T {}

enum Store<T> {
    Heap(Vec<T>),
    /// The map is dropped before its file.
    Mapped(MmapMut, Box<dyn ScratchFile>),
}

/// A growable array.
pub struct Array<T: Plain> {
    scratch: Scratch,
    store: Store<T>,
    /// Number of elements in a mapped array.
    length: usize,
}

impl<T: Plain> Array<T> {
    /// An empty array.
    pub fn new(scratch: &Scratch) -> Self {
        Self { scratch: scratch.clone(), store: Store::Heap(Vec::new()), length: 0 }
    }

    /// Appends an element.
    ///
    /// # Errors
    /// Out of memory or disk space.
    pub fn push(&mut self, value: T) -> io::Result<()> {
        self.extend_from_slice(&[value])
    }

    /// Appends elements.
    ///
    /// # Errors
    /// As [`Array::push`].
    pub fn extend_from_slice(&mut self, values: &[T]) -> io::Result<()> {
        let start = self.len();
        self.make_room(values.len())?;
        match &mut self.store {
            Store::Heap(vec) => vec.extend_from_slice(values),
            Store::Mapped(..) => {
                self.length += values.len();
                if let Some(place) = self.get_mut(start..) {
                    place.copy_from_slice(values);
                }
            }
        }
        Ok(())
    }

    /// Extends it to this length with copies of `value`.
    ///
    /// # Errors
    /// As [`Array::push`].
    pub fn grow(&mut self, length: usize, value: T) -> io::Result<()> {
        let start = self.len();
        let more = length.saturating_sub(start);
        self.make_room(more)?;
        match &mut self.store {
            Store::Heap(vec) => vec.resize(start + more, value),
            Store::Mapped(..) => {
                self.length += more;
                if let Some(place) = self.get_mut(start..) {
                    place.fill(value);
                }
            }
        }
        Ok(())
    }

    fn make_room(&mut self, more: usize) -> io::Result<()> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let needed = self.len().checked_add(more).and_then(|count| count.checked_mul(size_of::<T>())).ok_or_else(too_much)?;
        match &mut self.store {
            Store::Heap(vec) => match self.scratch.0.as_ref().filter(|_| needed > SPILL) {
                None => vec.try_reserve(more).map_err(|_| too_much()),
                Some(place) => {
                    let mut file = place.create()?;
                    let map = map(&mut *file, needed)?;
                    let moved = std::mem::take(vec);
                    self.store = Store::Mapped(map, file);
                    self.length = 0;
                    self.extend_from_slice(&moved)
                }
            },
            Store::Mapped(mapped, file) => {
                if needed > mapped.len() {
                    let length = needed.max(mapped.len().saturating_add(mapped.len() / 4));
                    *mapped = map(&mut **file, length)?;
                }
                Ok(())
            }
        }
    }
}

fn map(file: &mut dyn ScratchFile, length: usize) -> io::Result<MmapMut> {
    let length = length.checked_next_multiple_of(STEP).ok_or(io::ErrorKind::OutOfMemory)?;
    file.grow(length as u64)?;
    // SAFETY: the file belongs to this array alone, is allocated up to `length`, and is never shortened.
    unsafe { memmap2::MmapOptions::new().len(length).map_mut(file.file()) }
}

impl<T: Plain> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.store {
            Store::Heap(vec) => vec,
            // Never fails: the map is page-aligned and holds at least `length` elements.
            Store::Mapped(map, _) => <[T]>::ref_from_prefix_with_elems(map, self.length).map_or(&[], |(elements, _)| elements),
        }
    }
}

impl<T: Plain> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.store {
            Store::Heap(vec) => vec,
            Store::Mapped(map, _) => <[T]>::mut_from_prefix_with_elems(map, self.length).map_or(&mut [], |(elements, _)| elements),
        }
    }
}

impl<T: Plain> AsRef<[u8]> for Array<T> {
    fn as_ref(&self) -> &[u8] {
        (**self).as_bytes()
    }
}

impl io::Write for Array<u8> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Plain> fmt::Debug for Array<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Array({} elements, {:?})", self.len(), self.scratch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Unlinked files in the directory for temporary files.
    pub struct Temporary;

    struct Unlinked(File);

    impl ScratchFile for Unlinked {
        fn file(&self) -> &File {
            &self.0
        }
        fn grow(&mut self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }
    }

    impl ScratchPlace for Temporary {
        fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
            Ok(Box::new(Unlinked(tempfile::tempfile()?)))
        }
    }

    #[test]
    fn an_array_holds_the_same_on_the_heap_and_in_a_file() {
        let mut arrays = [Array::new(&Scratch::memory()), Array::new(&Scratch::on_disk(Arc::new(Temporary)))];
        for array in &mut arrays {
            for number in 0..300_000_u32 {
                array.push([number, !number]).unwrap();
            }
            array.extend_from_slice(&[[7, 7]; 1000]).unwrap();
            array.grow(400_000, [9, 9]).unwrap();
            array[5] = [1, 2];
        }
        assert!(matches!(arrays[0].store, Store::Heap(_)) && matches!(arrays[1].store, Store::Mapped(..)));
        assert_eq!((arrays[1][4], arrays[1][5], arrays[1][299_999], arrays[1][300_999]), ([4, !4], [1, 2], [299_999, !299_999], [7, 7]));
        assert!(arrays[0][..] == arrays[1][..] && arrays[1].len() == 400_000);
    }

    #[test]
    fn growing_without_room_is_an_error_and_keeps_the_content() {
        struct Full;
        struct FullFile(File);
        impl ScratchFile for FullFile {
            fn file(&self) -> &File {
                &self.0
            }
            fn grow(&mut self, length: u64) -> io::Result<()> {
                if length > 2 << 20 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.set_len(length) }
            }
        }
        impl ScratchPlace for Full {
            fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
                Ok(Box::new(FullFile(tempfile::tempfile()?)))
            }
        }
        let mut array = Array::new(&Scratch::on_disk(Arc::new(Full)));
        array.grow(2 << 20, 3_u8).unwrap();
        assert_eq!(array.push(1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(array.len() == 2 << 20 && array.iter().all(|byte| *byte == 3));
    }
}
