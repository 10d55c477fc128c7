//! Money end to end, a file a scenario, in one test binary: real database, real vault, sandbox acquirer, and this binary itself as the process that
//! is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "money/a_bank_that_gives_feedback.rs"]
mod a_bank_that_gives_feedback;
#[path = "money/a_full_disk_stops_nothing_for_ever.rs"]
mod a_full_disk_stops_nothing_for_ever;
#[path = "money/a_purchase_is_confirmed_by_its_user_alone.rs"]
mod a_purchase_is_confirmed_by_its_user_alone;
#[path = "money/a_purchase_is_paid_by_its_accounts_bank.rs"]
mod a_purchase_is_paid_by_its_accounts_bank;
#[path = "money/a_purchase_waits_for_others.rs"]
mod a_purchase_waits_for_others;
#[path = "money/bad_input_changes_nothing.rs"]
mod bad_input_changes_nothing;
#[path = "money/canary.rs"]
mod canary;
#[path = "money/card_numbers_leave_memory.rs"]
mod card_numbers_leave_memory;
#[path = "money/card_numbers_leave_no_trace.rs"]
mod card_numbers_leave_no_trace;
#[path = "money/commands_for_rights_accounts_and_webhooks.rs"]
mod commands_for_rights_accounts_and_webhooks;
#[path = "money/commands_set_up_a_payment.rs"]
mod commands_set_up_a_payment;
#[path = "money/fault_proxy.rs"]
mod fault_proxy;
#[path = "money/feedback_bank.rs"]
mod feedback_bank;
#[path = "money/keys_rotate_while_cards_come_and_go.rs"]
mod keys_rotate_while_cards_come_and_go;
#[path = "money/killed_around_the_charge.rs"]
mod killed_around_the_charge;
#[path = "money/localstripe.rs"]
mod localstripe;
#[path = "money/people.rs"]
mod people;
#[path = "money/proof/mod.rs"]
mod proof;
#[path = "money/purchase_house.rs"]
mod purchase_house;
#[path = "money/stripe_in_trouble.rs"]
mod stripe_in_trouble;
#[path = "money/support.rs"]
mod support;
#[path = "money/the_database_goes_away_in_the_middle.rs"]
mod the_database_goes_away_in_the_middle;
#[path = "money/the_database_is_reached_over_tls.rs"]
mod the_database_is_reached_over_tls;
#[path = "money/the_same_asked_again_is_done_once.rs"]
mod the_same_asked_again_is_done_once;
#[path = "money/what_happened_is_told_in_order.rs"]
mod what_happened_is_told_in_order;
