//! Money end to end, a file a scenario, in one test binary: real database, real vault, sandbox acquirer, and this binary itself as the process that
//! is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "money/card_numbers_leave_no_trace.rs"]
mod card_numbers_leave_no_trace;
#[path = "money/commands_set_up_a_payment.rs"]
mod commands_set_up_a_payment;
#[path = "money/fault_proxy.rs"]
mod fault_proxy;
#[path = "money/keys_rotate_while_cards_come_and_go.rs"]
mod keys_rotate_while_cards_come_and_go;
#[path = "money/killed_around_the_charge.rs"]
mod killed_around_the_charge;
#[path = "money/localstripe.rs"]
mod localstripe;
#[path = "money/proof/mod.rs"]
mod proof;
#[path = "money/stripe_in_trouble.rs"]
mod stripe_in_trouble;
#[path = "money/support.rs"]
mod support;
