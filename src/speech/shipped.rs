//! The digit head that this program was built with.

/// `models/digits/head.safetensors`, which a script of this repository trained (scripts/digit-head).
pub(super) const HEAD: &[u8] = &[];
