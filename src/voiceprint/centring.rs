//! The mean voice, subtracted before voices are compared.

/// Part of the model's version: another mean makes other templates.
pub(super) const VERSION: &str = "centring-0";
