//! The rules of pairing.
