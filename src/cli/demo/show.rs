//! The demo on the screen: a timeline while a call goes on, a verdict when it ended; or one JSON line a call.

use std::io::IsTerminal;
use std::time::Duration;

use super::DemoArgs;
use super::data::{self, Seed};
use crate::app::App;
use crate::call::CallRecord;
use crate::call::timeline::{Event, Who};
use crate::cli::Context;
use crate::cli::exit::CliError;
use crate::config::Config;
use crate::phone::{PhoneEvent, PhoneEventKind};

/// Columns before a timeline's text.
const WHO_WIDTH: usize = 9;

pub(super) struct Show<'a> {
    ctx: &'a Context,
    colours: bool,
}

impl<'a> Show<'a> {
    pub(super) fn new(ctx: &'a Context) -> Self {
        let colours = !ctx.json && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { ctx, colours }
    }

    fn say(&self, text: &str) {
        if !self.ctx.json {
            self.ctx.answer(&serde_json::Value::Null, text);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn progress(&self, what: &str) {
        eprintln!("{what} …");
    }

    pub(super) fn note(&self, what: &str) {
        eprintln!("note: {what}");
    }

    pub(super) fn opening(&self, app: &App, seed: &Seed) {
        self.say(&format!(
            "Voicepay listens at sip:pay@{}. Four calls follow, in real time, over SIP/UDP and RTP (G.711) on loopback.\nAlice's telephone number is {}; her card ends in {}; {} asks her for 19.99 USD.",
            app.sip_address(),
            seed.number(0),
            seed.last4,
            seed.payee_name
        ));
    }

    pub(super) fn scenario(&self, number: usize, of: usize, title: &str) {
        self.say(&format!("\n{}", self.paint("1", &format!("Call {number} of {of}: {title}"))));
    }

    /// What the softphone does, as far as the service can't tell it: the words.
    pub(super) fn phone(&self, event: &PhoneEvent) {
        let what = match &event.kind {
            PhoneEventKind::Saying { label, .. } => format!("says: {label}"),
            PhoneEventKind::Keys { count } => format!("presses {count} keys"),
            PhoneEventKind::Step { .. }
            | PhoneEventKind::HeardSpeech
            | PhoneEventKind::HeardSilence { .. }
            | PhoneEventKind::Said { .. }
            | PhoneEventKind::Ended(_) => return,
        };
        self.line(event.at, "caller", "36", &what);
    }

    /// What the service does.
    pub(super) fn service(&self, event: &Event) {
        let (who, colour) = match event.who {
            // The softphone shows what it keys itself, and words say more than "a key".
            Who::Caller if event.what == crate::call::KEY_PRESSED => return,
            Who::Caller => ("heard", "36"),
            Who::Service => ("voicepay", "32"),
            Who::Check => ("check", "33"),
        };
        self.line(event.at, who, colour, &event.what);
    }

    fn line(&self, at: Duration, who: &str, colour: &str, what: &str) {
        self.say(&format!("{:>8.2} s  {} {what}", at.as_secs_f32(), self.paint(colour, &format!("{who:WHO_WIDTH$}"))));
    }

    pub(super) fn outcome(&self, key: &str, record: &CallRecord, problems: &[String]) {
        let verdict = format!("{:?}", record.verdict);
        if self.ctx.json {
            let figure = |name: &str| record.events.iter().rev().find_map(|e| e.figures.get(name)).cloned();
            let line = serde_json::json!({
                "scenario": key,
                "call": record.call,
                "verdict": verdict,
                "as_it_must": problems.is_empty(),
                "problems": problems,
                "duration_ms": record.duration_ms,
                "number_compared": record.number_compared,
                "voice_cosine": figure("voice_cosine"),
                "voice_llr": figure("voice_llr"),
                "number_llr": figure("number_llr"),
                "continuity_cosine": figure("continuity_cosine"),
                "embedding_ms": figure("embedding_ms"),
                "number_ms": figure("number_ms"),
                "timeline": record.events,
            });
            return self.ctx.answer(&line, "");
        }
        let text = match problems {
            [] => self.paint("32;1", &format!("→ {verdict}, as it must")),
            some => self.paint("31;1", &format!("→ {}", some.join("; "))),
        };
        self.say(&text);
    }

    pub(super) async fn closing(
        &self,
        app: &App,
        seed: &Seed,
        args: &DemoArgs,
        config: &Config,
        failed: &[String],
    ) -> Result<(), CliError> {
        if self.ctx.json {
            return Ok(());
        }
        for payment in data::payments(app.office()).await? {
            if let Some(receipt) = payment.receipt {
                let e = &receipt.evidence;
                self.say(&format!(
                    "\n{}\n  reference   {}\n  amount      {}\n  payee       {}\n  card        ending {}\n  at          {}\n  voice       {} nats (accepted from {})\n  number      {}, {} nats (accepted from {})\n  \"yes\"       same voice: {}\n  policy      {}",
                    self.paint("1", "Receipt"),
                    receipt.reference,
                    receipt.amount,
                    receipt.payee_name,
                    receipt.last4,
                    receipt.at,
                    number(e.voice_llr),
                    number(e.voice_accept_llr),
                    e.number_by.as_deref().unwrap_or("-"),
                    number(e.number_llr),
                    number(e.number_accept_llr),
                    number(e.yes_continuity),
                    e.policy_version,
                ));
            }
        }
        let look = if args.data_dir.is_some() {
            format!(
                "VOICEPAY__SERVICE__DATA_DIR={} voicepay payments list    shows what was charged",
                config.service.data_dir.display()
            )
        } else {
            "voicepay demo --data-dir demo-data    keeps database, key and journal to look into".to_owned()
        };
        let end = if failed.is_empty() {
            format!(
                "\nAll four calls ended as they must: one charge, one receipt, books that balance.\nWhere to look next:\n  {look}\n  voicepay demo --keep                  leaves the service up, for your own softphone and browser\n  README.md                             how to add a customer of your own ({} is this one)",
                seed.customer
            )
        } else {
            format!("\nNot as it must be:\n  {}", failed.join("\n  "))
        };
        self.say(&end);
        Ok(())
    }

    pub(super) fn how_to_dial(&self, app: &App, seed: &Seed) {
        let target = format!("sip:pay@{}", app.sip_address());
        let shop = app.api_address().map(|address| format!("http://{address}/shop"));
        let page = shop.as_deref().map_or(String::new(), |shop| {
            format!("\nOpen {shop} in a browser on this machine. Its customer is Alice, who is a synthetic voice: any other is refused, and so is yours.")
        });
        let text = format!(
            "\nThe service stays up; Ctrl-C stops it. Dial {target} as {} from any softphone on this machine, or:\n  voicepay call {target} --from {} --script audio-fixtures/scripts/pay_by_keypad.toml\nwhich pays once: the recordings of any call are refused in the next as heard before.{page}",
            seed.number(1),
            seed.number(1)
        );
        self.ctx.answer(&serde_json::json!({ "event": "kept", "sip": target, "from": seed.number(1), "shop": shop }), &text);
    }
}

fn number(value: Option<f32>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"))
}
