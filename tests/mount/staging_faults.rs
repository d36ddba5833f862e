//! Faults of what stages: full, lost and damaged state directories, and names that no archive holds.
