//! Calls as scenarios, a file a sentence, in one binary: everything real but the line and the clock (see `support`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

mod support;

mod a_call_that_we_place_tells_who_answered;
mod a_caller_can_reach_a_person_and_may_put_us_on_hold;
mod a_caller_enrols_a_voice_by_telephone;
mod a_caller_pays_by_voice_and_is_charged_once;
mod a_caller_who_says_nothing_or_hangs_up_pays_nothing;
mod a_caller_who_speaks_mandarin_is_served_in_it;
mod a_caller_who_wants_more_time_gets_it_and_pays_like_anybody;
mod a_near_miss_of_the_card_number_never_pays;
mod a_recording_that_is_played_back_never_pays;
mod a_template_follows_its_voice_only_by_consent_and_fresh_digits;
mod a_voice_is_deleted_by_telephone_for_its_owner_alone;
mod an_impostor_is_refused_in_the_same_words_as_a_wrong_number;
mod an_unknown_caller_is_never_asked_for_a_card;
mod fresh_digits_settle_what_the_voice_does_not;
mod limits_survive_hanging_up_and_restarting;
mod the_keypad_replaces_reading_the_number_never_the_voice;
