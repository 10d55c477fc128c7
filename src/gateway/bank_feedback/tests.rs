//! The wire to a bank that announces deductions.
