//! A call on rsipstack's INVITE dialog: its states read as our events, and what we want done as its methods.

use async_trait::async_trait;
use rsipstack::dialog::DialogId;
use rsipstack::dialog::dialog::{DialogState, DialogStateReceiver, TerminatedReason};
use rsipstack::dialog::invitation::InviteAsyncResult;
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::prelude::HasHeaders;
use rsipstack::sip::{Header, StatusCode};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::rsip::{Shared, failed, other_headers};
use super::signalling::{ACCEPTED_BODY, ALLOWED_METHODS, Call, CallEvent, Over, Refusal, StackError};

/// A dialog with the task or the outcome that belongs to it.
pub(super) struct RsipCall {
    dialog: InviteDialog,
    states: DialogStateReceiver,
    shared: Arc<Shared>,
    /// We called.
    ours: bool,
    /// The outcome of our INVITE.
    invite: Option<JoinHandle<InviteAsyncResult>>,
    acknowledged: bool,
    over: bool,
    /// The task that holds their INVITE's transaction.
    driver: Option<JoinHandle<()>>,
}

impl RsipCall {
    /// We called.
    pub(super) fn ours(
        dialog: InviteDialog,
        states: DialogStateReceiver,
        shared: Arc<Shared>,
        invite: JoinHandle<InviteAsyncResult>,
    ) -> Self {
        Self { dialog, states, shared, ours: true, invite: Some(invite), acknowledged: false, over: false, driver: None }
    }

    /// They called.
    pub(super) fn theirs(dialog: InviteDialog, states: DialogStateReceiver, shared: Arc<Shared>, driver: JoinHandle<()>) -> Self {
        Self { dialog, states, shared, ours: false, invite: None, acknowledged: false, over: false, driver: Some(driver) }
    }
}

#[async_trait]
impl Call for RsipCall {
    async fn accept(&mut self, description: String) -> Result<(), StackError> {
        let headers = vec![Header::ContentType(ACCEPTED_BODY.into()), Header::Allow(ALLOWED_METHODS.into())];
        self.dialog.accept(Some(headers), Some(description.into_bytes())).map_err(failed)
    }

    async fn next(&mut self) -> CallEvent {
        if self.over {
            return std::future::pending().await;
        }
        loop {
            let Some(state) = self.states.recv().await else { return self.ended(Over::Failed("the dialog is gone".to_owned())) };
            match state {
                DialogState::Calling(_) | DialogState::Trying(_) | DialogState::WaitAck(_, _) => {}
                DialogState::Early(_, response) => {
                    if self.ours {
                        return CallEvent::Progress(u16::from(response.status_code));
                    }
                }
                DialogState::Confirmed(_, response) => {
                    if !std::mem::replace(&mut self.acknowledged, true) {
                        return if self.ours {
                            CallEvent::Answered(response.body)
                        } else {
                            CallEvent::Acknowledged(self.dialog.last_remote_ack().map(|a| a.body).unwrap_or_default())
                        };
                    }
                }
                DialogState::Updated(_, request, handle) => {
                    let (reply, replied) = oneshot::channel::<Result<String, Refusal>>();
                    tokio::spawn(async move {
                        let sent = match replied.await {
                            Ok(Ok(description)) => {
                                let headers =
                                    vec![Header::ContentType(ACCEPTED_BODY.into()), Header::Allow(ALLOWED_METHODS.into())];
                                handle.respond(StatusCode::OK, Some(headers), Some(description.into_bytes())).await
                            }
                            Ok(Err(refusal)) => {
                                let headers = other_headers(&refusal.headers).collect();
                                handle.respond(StatusCode::from(refusal.status), Some(headers), None).await
                            }
                            Err(_nobody_replied) => handle.reply(StatusCode::ServerInternalError).await,
                        };
                        if sent.is_err() {
                            tracing::debug!("a re-INVITE was gone before it was answered");
                        }
                    });
                    return CallEvent::Reoffer { offer: (!request.body.is_empty()).then_some(request.body), reply };
                }
                // `within_dialog` answers these before they reach the dialog.
                DialogState::Publish(_, _, handle)
                | DialogState::Notify(_, _, handle)
                | DialogState::Refer(_, _, handle)
                | DialogState::Message(_, _, handle)
                | DialogState::Info(_, _, handle)
                | DialogState::Options(_, _, handle) => drop(handle),
                DialogState::Terminated(_, reason) => {
                    let over = self.why(reason).await;
                    return self.ended(over);
                }
            }
        }
    }

    async fn hang_up(&mut self) {
        if self.over {
            return;
        }
        let early = !matches!(self.dialog.state(), DialogState::Confirmed(_, _) | DialogState::WaitAck(_, _));
        let ended = match (self.ours, early) {
            // RFC 3261 section 15: no BYE before the ACK unless the other side has gone silent; rsipstack allows WaitAck.
            (_, false) => self.dialog.bye().await,
            (true, true) => self.dialog.cancel().await,
            (false, true) => self.dialog.reject(Some(StatusCode::TemporarilyUnavailable), None),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "hanging up was not answered");
        }
    }
}

impl RsipCall {
    fn ended(&mut self, over: Over) -> CallEvent {
        self.over = true;
        CallEvent::Over(over)
    }

    async fn why(&mut self, reason: TerminatedReason) -> Over {
        match reason {
            TerminatedReason::Timeout => Over::NotAcknowledged,
            TerminatedReason::UacCancel => {
                if self.ours {
                    Over::Ours
                } else {
                    Over::Cancelled
                }
            }
            // Ours and theirs both end as "the UAC's BYE" or "the UAS's BYE"; which one is whose hangs on our role.
            TerminatedReason::UacBye => {
                if self.ours {
                    Over::Ours
                } else {
                    Over::Bye
                }
            }
            TerminatedReason::UasBye => {
                if self.ours {
                    Over::Bye
                } else {
                    Over::Ours
                }
            }
            TerminatedReason::UacBusy | TerminatedReason::UasBusy | TerminatedReason::UasDecline => {
                if self.ours {
                    self.refused(486).await
                } else {
                    Over::Ours
                }
            }
            TerminatedReason::ProxyAuthRequired => self.refused(407).await,
            TerminatedReason::ProxyError(code) | TerminatedReason::UacOther(code) | TerminatedReason::UasOther(code) => {
                self.refused(u16::from(code)).await
            }
        }
    }

    /// With the words of the final response, which the dialog's state leaves out.
    async fn refused(&mut self, status: u16) -> Over {
        let response = match self.invite.take() {
            Some(invite) => invite.await.ok().and_then(Result::ok).and_then(|(_, response)| response),
            None => None,
        };
        let Some(response) = response else { return Over::Refused { status, reason: String::new() } };
        let warning = response
            .headers()
            .iter()
            .find(|h| h.name() == "Warning")
            .and_then(|h| h.value().split('"').nth(1).map(str::to_owned));
        let phrase = response.reason_phrase().map_or_else(|| response.status_code.text().to_owned(), str::to_owned);
        let status = u16::from(response.status_code);
        Over::Refused { status, reason: warning.map_or(phrase.clone(), |w| format!("{phrase} ({w})")) }
    }
}

impl Drop for RsipCall {
    fn drop(&mut self) {
        let id: DialogId = self.dialog.id();
        let (shared, driver) = (self.shared.clone(), self.driver.take());
        // When the runtime itself goes, everything goes with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Late retransmissions still meet their dialog and transaction; then both go.
        runtime.spawn(async move {
            tokio::select! {
                () = shared.stop.cancelled() => {}
                () = tokio::time::sleep(shared.t1x64) => {}
            }
            shared.layer.remove_dialog(&id);
            if let Some(driver) = driver {
                driver.abort();
            }
        });
    }
}
