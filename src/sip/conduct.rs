//! A call between its answer and its end: what signalling and media must tell each other, whoever called whom.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use tokio::net::UdpSocket;

use super::sdp::{self, LocalAudio, RemoteAudio};
use super::signalling::{Call, CallEvent, Over, Refusal};
use crate::media::leg::LegEnd;
use crate::media::rtp_session::{Codec, NegotiatedMedia, RtpSession};

/// What offer and answer said.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// Our end.
    pub local: LocalAudio,
    /// Theirs.
    pub remote: RemoteAudio,
}

impl Agreement {
    /// For the media session.
    pub fn media(&self) -> NegotiatedMedia {
        let media = NegotiatedMedia::new(Codec::Pcmu, self.remote.pcmu);
        match self.remote.telephone_event {
            Some(payload_type) => media.with_telephone_event(payload_type, Codec::Pcmu.rtp_clock_hz()),
            None => media,
        }
    }

    /// Where their RTP is received.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.remote.address, self.remote.port)
    }
}

/// Carries hang-ups both ways until the call is over at both ends. `acknowledged`: the answer needs no ACK any more.
pub async fn conduct(call: &mut Box<dyn Call>, session: RtpSession, mut agreement: Agreement, mut acknowledged: bool) {
    let control = session.control();
    let mut finished = pin!(session.finished());
    let mut media_over = false;
    loop {
        tokio::select! {
            report = &mut finished, if !media_over => {
                media_over = true;
                tracing::debug!(why = ?report.why, stats = ?report.stats, "the media session ended");
                if !report.why.needs_bye() {
                    return;
                }
                // RFC 3261 section 15: the called side sends no BYE before the ACK, or before its 200 has timed out.
                if acknowledged {
                    return call.hang_up().await;
                }
            }
            event = call.next() => match event {
                CallEvent::Acknowledged(_) => {
                    acknowledged = true;
                    if media_over {
                        return call.hang_up().await;
                    }
                }
                CallEvent::Reoffer { offer, reply } => {
                    let answer = renegotiate(&mut agreement, offer.as_deref());
                    control.renegotiate(agreement.destination(), agreement.media());
                    let _gone = reply.send(answer);
                }
                CallEvent::Progress { .. }
                | CallEvent::Answered(_)
                | CallEvent::Settled(_)
                | CallEvent::Reoffered(_)
                | CallEvent::Keys(_)
                | CallEvent::Refer(_) => {}
                CallEvent::Over(over) => {
                    control.end(leg_end(&over));
                    if !media_over {
                        let report = finished.await;
                        tracing::debug!(why = ?over, stats = ?report.stats, "the call ended");
                    }
                    return;
                }
            }
        }
    }
}

/// Answers a re-INVITE: hold, resume, another address, a session refresh.
fn renegotiate(agreement: &mut Agreement, offer: Option<&[u8]>) -> Result<String, Refusal> {
    let mut local = agreement.local;
    let Some(offer) = offer else {
        // "Make me an offer": the same again. The answer in the ACK can only take it.
        return Ok(sdp::offer(&local));
    };
    local.version = local.version.saturating_add(1);
    let (text, remote) = sdp::parse(offer).and_then(|o| sdp::answer(&o, &local)).map_err(|e| refusal(&e))?;
    if (remote.pcmu, remote.telephone_event) != (agreement.remote.pcmu, agreement.remote.telephone_event) {
        // The call goes on as it was (RFC 3261 section 14.2).
        return Err(Refusal::new(488).warning(399, "the payload types can't change during a call"));
    }
    *agreement = Agreement { local, remote };
    Ok(text)
}

/// A refusal that says what is wrong with a description.
pub fn refusal(error: &sdp::SdpError) -> Refusal {
    Refusal::new(error.status()).warning(error.warn_code(), &error.to_string())
}

fn leg_end(over: &Over) -> LegEnd {
    match over {
        Over::Bye => LegEnd::Caller,
        Over::Cancelled | Over::NotAcknowledged => LegEnd::Abandoned,
        Over::Refused { .. } | Over::Ours | Over::Expired | Over::Failed(_) => LegEnd::Failed,
    }
}

/// The local address that leads to `peer`, by the system's routes. Nothing is sent.
pub async fn address_towards(peer: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}
