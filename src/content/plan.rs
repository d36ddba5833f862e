//! Chooses how to read a blob, a pure function of a few facts, and how a raw one is cut.

use crate::cache::Layout;
use crate::error::{Error, ErrorKind};
use crate::layer::{Form, RAW_SPAN};

/// Most spans for a claimed size: 1 TiB of raw blob, 8 MiB of boundaries.
const RAW_SPANS: u64 = 1 << 20;

/// The facts that decide how a blob is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Archive or raw.
    pub(super) form: Form,
    /// Whether it is in an envelope.
    pub(super) is_sealed: bool,
    /// Its size in bytes, as claimed.
    pub(super) size: u64,
    /// Whether the index built here from the whole blob is present.
    pub(super) is_indexed: bool,
    /// The state of its attached index.
    pub(super) attached: Attached,
    /// Whether nothing may be served before the whole blob is verified.
    pub(super) strict: bool,
    /// Whether it turned out wrong while being served unverified.
    pub(super) was_wrong: bool,
}

/// The state of a blob's attached index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// There is none, or it cannot be fetched.
    None,
    /// It can probably be fetched.
    Expected,
    /// It is present.
    Here,
    /// A span did not match it.
    Doubted,
}

/// How a reader gets the bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Plan {
    /// In one piece, verified against the blob's digest. Needs no index.
    Single,
    /// Span by span, through the index built here from the whole blob.
    Indexed,
    /// Span by span, through the attached index.
    Attached,
    /// Span by span as delivered by a trusted transport, while the whole is being verified.
    Unchecked,
    /// From its envelope, through the index built here.
    Sealed,
}

/// The next step towards a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Everything this plan needs is present.
    Read(Plan),
    /// Fetch the attached index.
    FetchIndex,
    /// Read the whole blob once, which yields its index.
    ReadWhole,
    /// The same for the content of an envelope.
    Unseal,
}

/// Whether a blob is a single span, which its own digest suffices to verify.
pub(super) fn is_single(form: Form, is_sealed: bool, size: u64) -> bool {
    form == Form::Raw && !is_sealed && size <= RAW_SPAN
}

/// Whether spans are copied into the cache. A raw blob on this machine is read in place: every span is verified each time it is read, by the blob's own
/// digest or by those of an index, so a file that changes under a mount yields errors, never wrong bytes.
pub(super) fn is_copied(form: Form, is_sealed: bool, is_local: bool) -> bool {
    form == Form::Archive || is_sealed || !is_local
}

/// Chooses the next step.
pub(super) fn choose(facts: &Facts) -> Step {
    if facts.is_sealed {
        return Step::Unseal;
    }
    if is_single(facts.form, facts.is_sealed, facts.size) {
        return Step::Read(Plan::Single);
    }
    // An index built from the blob itself cannot lie.
    if facts.is_indexed {
        return Step::Read(Plan::Indexed);
    }
    match (facts.attached, facts.form) {
        (Attached::Here, _) => Step::Read(Plan::Attached),
        (Attached::Expected, _) => Step::FetchIndex,
        (_, Form::Archive) => Step::ReadWhole,
        // Readers through the wrong index were told that their content is verified.
        (Attached::Doubted, Form::Raw) => Step::ReadWhole,
        // A blob that was wrong once is verified before its first byte: bad bytes stay an error, and bytes repaired in the registry are read again.
        (Attached::None, Form::Raw) if facts.strict || facts.was_wrong => Step::ReadWhole,
        (Attached::None, Form::Raw) => Step::Read(Plan::Unchecked),
    }
}

/// The layout of a raw blob with a claimed size.
pub(super) fn raw_layout(size: u64) -> Result<Layout, Error> {
    let count = size.div_ceil(RAW_SPAN);
    if count > RAW_SPANS {
        return Err(Error::new(ErrorKind::Unsupported, format!("a blob of {size} bytes is larger than ocifs can read (1 TiB)")));
    }
    Ok(Layout::new((0..count).map(|number| number * RAW_SPAN).collect::<Vec<_>>(), size, []))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_raw_blobs_are_read_in_place() {
        use Form::{Archive, Raw};
        let in_place = [Archive, Raw]
            .into_iter()
            .flat_map(|form| [(form, false, false), (form, false, true), (form, true, false), (form, true, true)])
            .filter(|(form, is_sealed, is_local)| !is_copied(*form, *is_sealed, *is_local));
        assert!(in_place.eq([(Raw, false, true)]));
    }

    #[test]
    fn each_combination_of_facts_has_its_plan() {
        use Attached::{Doubted, Expected, Here};
        use Form::{Archive, Raw};
        let usual = |form| Facts {
            form,
            is_sealed: false,
            size: 1 << 30,
            is_indexed: false,
            attached: Attached::None,
            strict: false,
            was_wrong: false,
        };
        let small = |form| Facts { size: RAW_SPAN, ..usual(form) };
        let attached = |form, attached| Facts { attached, ..usual(form) };
        let table = [
            (usual(Archive), Step::ReadWhole),
            (usual(Raw), Step::Read(Plan::Unchecked)),
            (Facts { strict: true, ..usual(Raw) }, Step::ReadWhole),
            (Facts { was_wrong: true, ..usual(Raw) }, Step::ReadWhole),
            // A small raw blob needs no index, whatever else is known.
            (small(Raw), Step::Read(Plan::Single)),
            (Facts { strict: true, was_wrong: true, is_indexed: true, attached: Doubted, ..small(Raw) }, Step::Read(Plan::Single)),
            (Facts { size: RAW_SPAN + 1, ..usual(Raw) }, Step::Read(Plan::Unchecked)),
            (small(Archive), Step::ReadWhole),
            // The index built here takes precedence.
            (Facts { is_indexed: true, ..attached(Archive, Here) }, Step::Read(Plan::Indexed)),
            (Facts { is_indexed: true, strict: true, was_wrong: true, ..attached(Raw, Expected) }, Step::Read(Plan::Indexed)),
            (Facts { is_indexed: true, ..attached(Archive, Doubted) }, Step::Read(Plan::Indexed)),
            (attached(Archive, Here), Step::Read(Plan::Attached)),
            (Facts { strict: true, was_wrong: true, ..attached(Raw, Here) }, Step::Read(Plan::Attached)),
            (attached(Archive, Expected), Step::FetchIndex),
            (attached(Raw, Expected), Step::FetchIndex),
            (attached(Archive, Doubted), Step::ReadWhole),
            (attached(Raw, Doubted), Step::ReadWhole),
            // Sealed content is never read in any other way.
            (Facts { is_sealed: true, is_indexed: true, attached: Here, ..small(Raw) }, Step::Unseal),
            (Facts { is_sealed: true, strict: true, ..usual(Archive) }, Step::Unseal),
        ];
        for (facts, step) in table {
            assert_eq!(choose(&facts), step, "{facts:?}");
        }
    }

    #[test]
    fn ranges_find_their_spans() {
        let layout = raw_layout(3 * RAW_SPAN + 5).unwrap();
        assert_eq!(layout.count(), 4);
        assert_eq!(layout.spans_of(&(0..1)), 0..1);
        assert_eq!(layout.spans_of(&(0..RAW_SPAN)), 0..1);
        assert_eq!(layout.spans_of(&(0..RAW_SPAN + 1)), 0..2);
        assert_eq!(layout.spans_of(&(RAW_SPAN..3 * RAW_SPAN + 5)), 1..4);
        assert_eq!(layout.spans_of(&(5..5)), 0..0);
        assert_eq!(layout.spans_of(&(4 * RAW_SPAN..5 * RAW_SPAN)), 0..0);
        assert_eq!(layout.span(3), 3 * RAW_SPAN..3 * RAW_SPAN + 5);
        assert_eq!(layout.span(4), 3 * RAW_SPAN + 5..3 * RAW_SPAN + 5);
    }

    #[test]
    fn an_absurd_claimed_size_is_refused_before_any_allocation() {
        for size in [(RAW_SPANS * RAW_SPAN) + 1, u64::MAX] {
            assert_eq!(raw_layout(size).err().map(|error| error.kind), Some(ErrorKind::Unsupported));
        }
    }
}
