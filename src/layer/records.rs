//! Stored bytes as sections of fixed-size records, and the fields shared by the index of a layer and the tree of an artifact.
//!
//! A record is a `repr(C)` struct of unaligned little-endian fields: the declaration is the format, and access in place copies nothing. Reserved
//! fields are written as zero and ignored. Whether values make sense is for each format to check.

use std::marker::PhantomData;

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Extent;

/// A type stored byte for byte.
pub(crate) trait Record: FromBytes + Immutable + KnownLayout + Unaligned {}
impl<T: FromBytes + Immutable + KnownLayout + Unaligned> Record for T {}

/// Where consecutive records are in stored bytes. A heap is a section of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<T> {
    start: usize,
    count: usize,
    records: PhantomData<T>,
}

impl<T: Record> Section<T> {
    /// `count` records from `end` on, which moves behind them. `None` if they exceed the address space.
    pub fn place(end: &mut usize, count: impl Into<u64>) -> Option<Self> {
        let (start, count) = (*end, usize::try_from(count.into()).ok()?);
        *end = start.checked_add(count.checked_mul(size_of::<T>())?)?;
        Some(Self { start, count, records: PhantomData })
    }

    /// Number of records.
    pub fn len(self) -> usize {
        self.count
    }

    /// All records; none if the bytes are too short.
    pub fn of(self, bytes: &[u8]) -> &[T] {
        let records = bytes.get(self.start..).and_then(|rest| <[T]>::ref_from_prefix_with_elems(rest, self.count).ok());
        records.map_or(&[], |(records, _)| records)
    }

    /// One record. `None` if out of range.
    pub fn get(self, bytes: &[u8], number: impl Into<u64>) -> Option<&T> {
        self.of(bytes).get(usize::try_from(number.into()).ok()?)
    }

    /// `count` records from `first` on. `None` if any is out of range.
    pub fn range(self, bytes: &[u8], first: impl Into<u64>, count: impl Into<u64>) -> Option<&[T]> {
        let first = usize::try_from(first.into()).ok()?;
        self.of(bytes).get(first..first.checked_add(usize::try_from(count.into()).ok()?)?)
    }
}

/// Owner and group of a file, or major and minor number of a device.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Pair(U32, U32);

impl From<(u32, u32)> for Pair {
    fn from((first, second): (u32, u32)) -> Self {
        Self(first.into(), second.into())
    }
}

impl From<Pair> for (u32, u32) {
    fn from(Pair(first, second): Pair) -> Self {
        (first.get(), second.get())
    }
}

/// A time: seconds since 1970, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Time(I64, U32);

impl From<(i64, u32)> for Time {
    fn from((seconds, nanoseconds): (i64, u32)) -> Self {
        Self(seconds.into(), nanoseconds.into())
    }
}

impl From<Time> for (i64, u32) {
    fn from(Time(seconds, nanoseconds): Time) -> Self {
        (seconds.get(), nanoseconds.get())
    }
}

/// A piece of a file's content.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ExtentRecord {
    file: U64,
    stream: U64,
    length: U64,
}

impl From<Extent> for ExtentRecord {
    fn from(Extent { file, stream, length }: Extent) -> Self {
        Self { file: file.into(), stream: stream.into(), length: length.into() }
    }
}

impl From<ExtentRecord> for Extent {
    fn from(ExtentRecord { file, stream, length }: ExtentRecord) -> Self {
        Self { file: file.get(), stream: stream.get(), length: length.get() }
    }
}
