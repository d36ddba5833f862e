//! Single headers and whole archives of every dialect.
