//! Who answered a call that we placed, in words and as JSON: what `call --who` and `trunk call` tell.

use serde_json::{Value, json};

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::app::outbound::{NotAnswered, Reached};
use crate::sip::Unanswered;
use crate::speech::pickup::{Answerer, Beep, Pickup, Sign};

/// Tells the outcome; then the beep of a machine, if `beep` asks to wait for it. Well if a person answered.
pub(super) async fn tell(ctx: &Context, outcome: &mut Reached, beep: bool) -> CliResult {
    let nobody = |text: String| Err(CliError::new(Exit::Call, text));
    match outcome {
        Reached::Person(line) => {
            ctx.answer(&answered_json(&line.pickup), &answered_text(&line.pickup));
            Ok(())
        }
        Reached::Other(line) => {
            let text = answered_text(&line.pickup);
            ctx.answer(&answered_json(&line.pickup), &text);
            if beep && line.pickup.by == Answerer::Machine {
                let beep = line.beep().await;
                ctx.answer(&beep_json(beep), &beep_text(beep));
            }
            nobody(format!("no person answered: {text}"))
        }
        Reached::HungUp => {
            let text = "answered, and hung up before it was known by whom";
            ctx.answer(&json!({ "event": "answered", "by": "hung_up" }), text);
            nobody(format!("no person answered: {text}"))
        }
        Reached::Unanswered(error) => {
            let text = unanswered_text(error);
            ctx.answer(&unanswered_json(error), &text);
            nobody(text)
        }
    }
}

fn answered_json(pickup: &Pickup) -> Value {
    let mut answer = json!(pickup);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("event".to_owned(), json!("answered"));
    }
    answer
}

fn answered_text(pickup: &Pickup) -> String {
    let who = match pickup.by {
        Answerer::Person => "a person answered",
        Answerer::Machine => "a machine answered",
        Answerer::Network => "the network answered",
        Answerer::Silent => "answered, and nobody speaks",
        Answerer::Unknown => "answered, and it is not clear by whom",
    };
    let greeting = f64::from(pickup.greeting_ms) / 1_000.0;
    let sign = match pickup.sign {
        Sign::ShortGreeting => format!("a greeting of {greeting:.1} s, then silence"),
        Sign::LongGreeting => format!("a greeting of more than {greeting:.1} s"),
        Sign::Beep => "a beep".to_owned(),
        Sign::FaxTone => "the tone of a fax".to_owned(),
        Sign::SpecialInformationTone => "a special information tone".to_owned(),
        Sign::BusyTone => "a busy or congestion tone".to_owned(),
        Sign::Silence => "silence".to_owned(),
        Sign::Deadline => "time is up".to_owned(),
    };
    format!("{who} ({sign}; known after {:.1} s)", f64::from(pickup.after_ms) / 1_000.0)
}

fn beep_json(beep: Option<Beep>) -> Value {
    match beep {
        Some(beep) => json!({ "event": "beep", "hz": beep.hz.round(), "lasted_ms": beep.lasted_ms, "ended_ms": beep.ended_ms }),
        None => json!({ "event": "no_beep" }),
    }
}

fn beep_text(beep: Option<Beep>) -> String {
    match beep {
        Some(Beep { hz, lasted_ms, ended_ms }) => {
            format!(
                "it beeped ({hz:.0} Hz, {lasted_ms} ms) and records since {:.1} s after the answer",
                f64::from(ended_ms) / 1_000.0
            )
        }
        None => "no beep was heard".to_owned(),
    }
}

fn unanswered_json(error: &NotAnswered) -> Value {
    json!({ "event": "unanswered", "why": error.word(), "status": error.status, "sign": error.sign, "said": error.said })
}

fn unanswered_text(error: &NotAnswered) -> String {
    let why = match error.why {
        Unanswered::Busy => "they are busy",
        Unanswered::Declined => "they declined",
        Unanswered::NoAnswer => "nobody answered",
        Unanswered::NoSuchNumber => "there is no such number",
        Unanswered::Failed => "they can't be reached",
    };
    format!("{why}: {}", error.said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::DialError;

    #[test]
    fn outcomes_are_told_in_words_and_as_fields() {
        let person = Pickup { by: Answerer::Person, sign: Sign::ShortGreeting, after_ms: 1_940, greeting_ms: 620 };
        assert_eq!(answered_text(&person), "a person answered (a greeting of 0.6 s, then silence; known after 1.9 s)");
        assert_eq!(
            answered_json(&person),
            json!({ "event": "answered", "by": "person", "sign": "short_greeting", "after_ms": 1_940, "greeting_ms": 620 })
        );
        let busy = DialError::Refused { status: 486, reason: "Busy Here".to_owned() };
        let told = unanswered_json(&NotAnswered::from(&busy));
        assert_eq!((&told["why"], &told["status"]), (&json!("busy"), &json!(486)));
        assert_eq!(unanswered_text(&NotAnswered::from(&busy)), "they are busy: the call was refused: 486 Busy Here");
    }
}
