//! ISO 8583 with a bank host that we did not write: every operation and every fault, and after each the host's books and ours
//! agree. Needs Python 3 and the package pyiso8583, which `scripts/banks/venv.sh` fetches once; says so and skips where they
//! can't be had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "banks/iso_faults.rs"]
mod iso_faults;
#[path = "banks/iso_lines.rs"]
mod iso_lines;
#[path = "banks/iso_operations.rs"]
mod iso_operations;
#[path = "banks/iso_payments.rs"]
mod iso_payments;
#[path = "money/people.rs"]
#[allow(dead_code)] // other tests need more of it
mod people;
#[path = "banks/support.rs"]
mod support;
