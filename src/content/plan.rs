//! Which way to read a blob: a pure choice from a few facts.

use crate::layer::{Form, RAW_SPAN};

/// Facts about a blob that decide how it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Archive or raw.
    pub(super) form: Form,
    /// Whether its content lies in an envelope.
    pub(super) is_sealed: bool,
    /// Its size in bytes, as claimed.
    pub(super) size: u64,
    /// Whether the index that was made here from the whole blob is at hand.
    pub(super) is_indexed: bool,
    /// The index attached to it.
    pub(super) attached: Attached,
    /// Whether nothing may be served before all of it was checked.
    pub(super) strict: bool,
    /// Whether it turned out wrong while it was served unchecked.
    pub(super) was_wrong: bool,
}

/// The state of the index attached to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// There is none, or it cannot be fetched.
    None,
    /// It can probably be fetched.
    Expected,
    /// It is at hand.
    Here,
    /// A span did not match it.
    Doubted,
}

/// How a reader gets the bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Plan {
    /// In one piece, compared with the digest of the blob. Needs no index.
    Single,
    /// Span by span, by the index that was made here from the whole blob.
    Indexed,
    /// Span by span, by the index attached to it.
    Attached,
    /// Span by span as a trusted transport delivers them, while the whole is being checked.
    Unchecked,
    /// Out of its envelope, by the index that was made here.
    Sealed,
}

/// The next step towards a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All that this plan needs is at hand.
    Read(Plan),
    /// The attached index has to be fetched.
    FetchIndex,
    /// The blob has to be read whole once, which gives its index.
    ReadWhole,
    /// The same for what lies in an envelope.
    Unseal,
}

/// Whether a blob is one span, so that its own digest is all that is needed to check it.
pub(super) fn is_single(form: Form, is_sealed: bool, size: u64) -> bool {
    form == Form::Raw && !is_sealed && size <= RAW_SPAN
}

/// Chooses the next step.
pub(super) fn choose(facts: &Facts) -> Step {
    if facts.is_sealed {
        return Step::Unseal;
    }
    if is_single(facts.form, facts.is_sealed, facts.size) {
        return Step::Read(Plan::Single);
    }
    // An index that was made from the blob itself cannot lie.
    if facts.is_indexed {
        return Step::Read(Plan::Indexed);
    }
    match (facts.attached, facts.form) {
        (Attached::Here, _) => Step::Read(Plan::Attached),
        (Attached::Expected, _) => Step::FetchIndex,
        (_, Form::Archive) => Step::ReadWhole,
        // Readers by an index that turned out wrong were told that what they read is verified.
        (Attached::Doubted, Form::Raw) => Step::ReadWhole,
        // What turned out wrong once is checked before its first byte: bad bytes stay an error, and bytes that the registry
        // has mended are read again.
        (Attached::None, Form::Raw) if facts.strict || facts.was_wrong => Step::ReadWhole,
        (Attached::None, Form::Raw) => Step::Read(Plan::Unchecked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            // The index that was made here comes first.
            (Facts { is_indexed: true, ..attached(Archive, Here) }, Step::Read(Plan::Indexed)),
            (Facts { is_indexed: true, strict: true, was_wrong: true, ..attached(Raw, Expected) }, Step::Read(Plan::Indexed)),
            (Facts { is_indexed: true, ..attached(Archive, Doubted) }, Step::Read(Plan::Indexed)),
            (attached(Archive, Here), Step::Read(Plan::Attached)),
            (Facts { strict: true, was_wrong: true, ..attached(Raw, Here) }, Step::Read(Plan::Attached)),
            (attached(Archive, Expected), Step::FetchIndex),
            (attached(Raw, Expected), Step::FetchIndex),
            (attached(Archive, Doubted), Step::ReadWhole),
            (attached(Raw, Doubted), Step::ReadWhole),
            // What is sealed is never read otherwise.
            (Facts { is_sealed: true, is_indexed: true, attached: Here, ..small(Raw) }, Step::Unseal),
            (Facts { is_sealed: true, strict: true, ..usual(Archive) }, Step::Unseal),
        ];
        for (facts, step) in table {
            assert_eq!(choose(&facts), step, "{facts:?}");
        }
    }
}
