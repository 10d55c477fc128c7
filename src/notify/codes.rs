//! One-time codes and links on their way: unsealed for the command that carries messages, and wiped as soon as it took them. Neither is logged.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use zeroize::Zeroizing;

use super::{Inner, Notifier};
use crate::store::papers::{CodeDelivery, LinkAbout, LinkMessage};
use crate::store::{self, Customer, StoreError};

/// Codes that one round sends.
const BATCH: u32 = 16;
/// Between two tries for one of them.
const RETRY: Duration = Duration::from_secs(15);
/// A link that the command did not take so often is given up: an hour of tries. A code runs out long before.
const LIMIT_TRIES: u32 = 240;

impl Notifier {
    /// Sends codes that wait; says how many went.
    pub(super) async fn send_codes(&self) -> Result<usize, StoreError> {
        let inner = &*self.inner;
        if inner.cfg.command.is_empty() {
            return Ok(0);
        }
        let now = inner.clock.now();
        let mut sent = 0_usize;
        for delivery in inner.store.claim_code_deliveries(now, now.plus(RETRY), BATCH).await? {
            match inner.carry(&delivery).await {
                Ok(()) => {
                    inner.store.code_delivered(&delivery.code).await?;
                    sent = sent.saturating_add(1);
                }
                Err(why) if delivery.tries >= LIMIT_TRIES => {
                    tracing::warn!(message = %delivery.code, %why, "a message to a customer was not sent, and is given up");
                    inner.store.code_delivered(&delivery.code).await?;
                }
                Err(why) => {
                    tracing::warn!(message = %delivery.code, %why, "a message to a customer was not sent; trying again while it is good")
                }
            }
        }
        Ok(sent)
    }
}

impl Inner {
    async fn carry(&self, d: &CodeDelivery) -> Result<(), String> {
        let customer = self.store.customer(&d.customer).await.map_err(|e| e.to_string())?.ok_or("the customer is gone")?;
        let key = store::customer_key(&*self.store, &self.vault, &d.customer).await.map_err(|e| e.to_string())?;
        let plain = key.unseal_code(&d.code, &d.sealed).map_err(|e| e.to_string())?;
        let message = match LinkMessage::from_bytes(&plain) {
            Some(link) => {
                let about = match link.about {
                    LinkAbout::Approval => "approval",
                    LinkAbout::Purchase => "purchase",
                };
                to_customer(d, &customer, "link", &[("about", json!(about)), ("url", json!(link.url))])
            }
            None => {
                let digits = plain.iter().map(|d| char::from(b'0'.saturating_add(*d)));
                let code: Zeroizing<String> = Zeroizing::new(digits.collect());
                to_customer(d, &customer, "one_time_code", &[("code", json!(*code))])
            }
        };
        self.run_command(message.as_bytes()).await
    }

    /// Runs the command with a message on its standard input. It took the message if it ends with 0 in time.
    async fn run_command(&self, message: &[u8]) -> Result<(), String> {
        let (program, args) = self.cfg.command.split_first().ok_or("notify.command is empty")?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("notify.command: `{program}` can't be started: {e}"))?;
        let mut stdin = child.stdin.take().ok_or("the command has no standard input")?;
        let whole = async {
            stdin.write_all(message).await.map_err(|e| e.to_string())?;
            drop(stdin);
            child.wait().await.map_err(|e| e.to_string())
        };
        let ended = tokio::time::timeout(Duration::from_millis(self.cfg.command_timeout_ms.max(1)), whole).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("notify.command: `{program}` ended with {status}")),
            Ok(Err(why)) => Err(format!("notify.command: `{program}`: {why}")),
            Err(_) => Err(format!("notify.command: `{program}` took longer than notify.command_timeout_ms")),
        }
    }
}

/// What the command is given.
fn to_customer(d: &CodeDelivery, customer: &Customer, kind: &str, more: &[(&str, Value)]) -> Zeroizing<String> {
    let mut message = json!({
        "kind": kind,
        "customer": d.customer,
        "numbers": customer.numbers,
        "language": customer.language.code(),
        "expires_at": d.expires_at.to_string(),
    });
    if let Some(fields) = message.as_object_mut() {
        fields.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    Zeroizing::new(message.to_string())
}
