//! Calls that the service places, against a telephone written by hand: challenges, early media, forks, CANCEL in time and too
//! late, and the second leg of an attended transfer.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::digest::Credentials;
use super::place::{CallOut, Dialler, Placed};
use super::signalling::Transport;
use super::wire_tests::{OFFER, Peer, Service, header, service};
use super::{DialError, SipConfig, Unanswered};
use crate::media::leg::{LegCommand, LegEnd, LegEvent};

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256\r\n";

/// A telephone that is called.
struct Phone(Peer);

impl Phone {
    async fn new(service: &Service) -> Self {
        Self(Peer {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            service: service.listener.local_addr,
            call_id: String::new(),
        })
    }

    fn out(&self) -> CallOut {
        let at = self.0.socket.local_addr().unwrap();
        CallOut {
            trunk: "test".into(),

            ..CallOut::new(
                format!("sip:+447700900123@{at}"),
                (at, Transport::Udp),
                "+448081570000".into(),
                Duration::from_secs(5),
            )
        }
    }

    async fn heard(&self, start: &str) -> String {
        self.0.expect(start).await
    }

    /// Answers a request, as the branch with this tag.
    async fn say(&self, request: &str, status: &str, tag: &str, extra: &str, body: &str) {
        let me = self.0.socket.local_addr().unwrap();
        let to = header(request, "To").unwrap();
        let to = if to.contains(";tag=") || tag.is_empty() { to.to_owned() } else { format!("{to};tag={tag}") };
        let copied: String =
            ["Via", "From", "Call-ID", "CSeq"].iter().map(|n| format!("{n}: {}\r\n", header(request, n).unwrap())).collect();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        self.0
            .send(&format!(
                "SIP/2.0 {status}\r\n{copied}To: {to}\r\nContact: <sip:{tag}@{me}>\r\n{extra}{content}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
    }
}

fn calling(dialler: Dialler, out: CallOut) -> JoinHandle<Result<Placed, DialError>> {
    tokio::spawn(async move { dialler.call(out).await })
}

async fn refused(call: JoinHandle<Result<Placed, DialError>>) -> DialError {
    tokio::time::timeout(Duration::from_secs(8), call).await.unwrap().unwrap().unwrap_err()
}

#[tokio::test]
async fn a_challenge_is_answered_once_a_nonce_and_again_if_it_was_only_stale() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let out = CallOut { credentials: Some(Credentials::new("us", "secret")), ..phone.out() };
    let call = calling(service.listener.dialler(), out.clone());
    let first = phone.heard("INVITE ").await;
    assert_eq!(header(&first, "Authorization"), None);
    assert!(header(&first, "Supported").unwrap().contains("100rel") && header(&first, "Session-Expires").is_some(), "{first}");
    phone.say(&first, "401 Unauthorized", "t", CHALLENGE, "").await;
    phone.heard("ACK ").await;
    let second = phone.heard("INVITE ").await;
    let answer = header(&second, "Authorization").unwrap();
    assert!(answer.contains("username=\"us\"") && answer.contains("nonce=\"n1\"") && answer.contains("SHA-256"), "{answer}");
    assert_eq!(header(&second, "CSeq"), Some("2 INVITE"));
    assert_eq!((header(&second, "From"), header(&second, "Call-ID")), (header(&first, "From"), header(&first, "Call-ID")));
    let stale = CHALLENGE.replace("n1\"", "n2\", stale=true");
    phone.say(&second, "401 Unauthorized", "t", &stale, "").await;
    let third = phone.heard("INVITE ").await;
    assert!(header(&third, "Authorization").unwrap().contains("nonce=\"n2\""), "{third}");
    phone.say(&third, "200 OK", "t", "", OFFER).await;
    assert!(phone.heard("ACK ").await.starts_with("ACK sip:t@"));
    let placed = call.await.unwrap().unwrap();
    assert_eq!((placed.leg.info.trunk.as_str(), placed.leg.info.called.as_str()), ("test", "+447700900123"));
    // A wrong password is not tried again.
    let call = calling(service.listener.dialler(), out);
    for _ in 0..2 {
        let invite = phone.heard("INVITE ").await;
        phone.say(&invite, "401 Unauthorized", "t", CHALLENGE, "").await;
    }
    assert!(matches!(refused(call).await, DialError::Refused { status: 401, .. }));
}

#[tokio::test]
async fn early_media_is_heard_before_the_answer_and_reliable_ones_are_acknowledged() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), CallOut { early_media: true, ..phone.out() });
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "183 Session Progress", "e", "Require: 100rel\r\nRSeq: 9\r\n", OFFER).await;
    let prack = phone.heard("PRACK sip:e@").await;
    assert_eq!(header(&prack, "RAck"), Some("9 1 INVITE"));
    phone.say(&prack, "200 OK", "e", "", "").await;
    let mut placed = call.await.unwrap().unwrap();
    assert_eq!(placed.name(), None);
    assert!(matches!(placed.leg.events.recv().await, Some(LegEvent::Frame(_))));
    // The answer repeats no description: the one that was sent reliably holds.
    phone.say(&invite, "200 OK", "e", "", "").await;
    phone.heard("ACK ").await;
    let answered = async { while !matches!(placed.leg.events.recv().await, Some(LegEvent::Answered)) {} };
    tokio::time::timeout(Duration::from_secs(3), answered).await.unwrap();
    assert_eq!(placed.name().map(|n| n.their_tag), Some("e".to_owned()));
    drop(placed);
    let bye = phone.heard("BYE sip:e@").await;
    assert_eq!(header(&bye, "CSeq"), Some("3 BYE"), "after the INVITE's 1 and the PRACK's 2");
}

#[tokio::test]
async fn nobody_answers_and_the_call_is_cancelled() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), CallOut { ring_timeout: Duration::from_millis(400), ..phone.out() });
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "180 Ringing", "e", "", "").await;
    let cancel = phone.heard("CANCEL ").await;
    assert_eq!(header(&cancel, "Via"), header(&invite, "Via"));
    assert_eq!((header(&cancel, "CSeq"), header(&cancel, "To")), (Some("1 CANCEL"), header(&invite, "To")));
    phone.say(&cancel, "200 OK", "e", "", "").await;
    phone.say(&invite, "487 Request Terminated", "e", "", "").await;
    phone.heard("ACK ").await;
    let error = refused(call).await;
    assert!(matches!(error, DialError::NoAnswer(_)) && error.why() == Unanswered::NoAnswer, "{error}");
}

#[tokio::test]
async fn an_answer_that_crosses_our_cancel_is_acknowledged_and_ended() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), CallOut { ring_timeout: Duration::from_millis(300), ..phone.out() });
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "180 Ringing", "e", "", "").await;
    let cancel = phone.heard("CANCEL ").await;
    phone.say(&invite, "200 OK", "e", "", OFFER).await;
    phone.say(&cancel, "200 OK", "e", "", "").await;
    phone.heard("ACK sip:e@").await;
    let bye = phone.heard("BYE sip:e@").await;
    phone.say(&bye, "200 OK", "e", "", "").await;
    assert!(matches!(refused(call).await, DialError::NoAnswer(_)));
}

#[tokio::test]
async fn a_cancel_waits_for_a_sign_of_life() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), CallOut { ring_timeout: Duration::from_millis(200), ..phone.out() });
    let invite = phone.heard("INVITE ").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    while let Some(text) = phone.0.receive(Duration::from_millis(20)).await {
        assert!(text.starts_with("INVITE"), "{text}");
    }
    phone.say(&invite, "180 Ringing", "e", "", "").await;
    phone.heard("CANCEL ").await;
    phone.say(&invite, "487 Request Terminated", "e", "", "").await;
    refused(call).await;
}

#[tokio::test]
async fn of_a_forked_call_the_first_answer_has_it_and_the_others_are_ended() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), phone.out());
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "180 Ringing", "one", "", "").await;
    phone.say(&invite, "180 Ringing", "two", "", "").await;
    phone.say(&invite, "200 OK", "two", "", OFFER).await;
    assert!(phone.heard("ACK ").await.starts_with("ACK sip:two@"));
    phone.say(&invite, "200 OK", "one", "", OFFER).await;
    assert!(phone.heard("ACK ").await.starts_with("ACK sip:one@"));
    let bye = phone.heard("BYE ").await;
    assert!(bye.starts_with("BYE sip:one@") && header(&bye, "To").unwrap().ends_with("tag=one"), "{bye}");
    phone.say(&bye, "200 OK", "one", "", "").await;
    // A repeated answer is acknowledged again, and nothing else.
    phone.say(&invite, "200 OK", "two", "", OFFER).await;
    assert!(phone.heard("ACK ").await.starts_with("ACK sip:two@"));
    let placed = call.await.unwrap().unwrap();
    drop(placed);
    assert!(phone.heard("BYE ").await.starts_with("BYE sip:two@"));
}

#[tokio::test]
async fn refusals_have_their_meaning_and_a_redirection_is_reported_not_followed() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    for (status, why) in [
        ("486 Busy Here", Unanswered::Busy),
        ("603 Decline", Unanswered::Declined),
        ("480 Temporarily Unavailable", Unanswered::NoAnswer),
        ("404 Not Found", Unanswered::NoSuchNumber),
        ("302 Moved Temporarily", Unanswered::Failed),
        ("503 Service Unavailable", Unanswered::Failed),
    ] {
        let call = calling(service.listener.dialler(), phone.out());
        let invite = phone.heard("INVITE ").await;
        phone.say(&invite, status, "t", "", "").await;
        let error = refused(call).await;
        assert_eq!(error.why(), why, "{error}");
        phone.heard("ACK ").await;
    }
}

#[tokio::test]
async fn a_session_that_is_too_short_for_them_is_asked_for_longer() {
    let service = service(SipConfig { session_expires_s: 90, ..SipConfig::default() }).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), phone.out());
    let invite = phone.heard("INVITE ").await;
    assert_eq!(header(&invite, "Session-Expires"), Some("90"));
    phone.say(&invite, "422 Session Interval Too Small", "t", "Min-SE: 600\r\n", "").await;
    phone.heard("ACK ").await;
    let longer = phone.heard("INVITE ").await;
    assert_eq!((header(&longer, "Session-Expires"), header(&longer, "Min-SE")), (Some("600"), Some("600")));
    phone.say(&longer, "200 OK", "t", "Session-Expires: 600;refresher=uas\r\n", OFFER).await;
    call.await.unwrap().unwrap();
}

/// What a 422 asks for leads to a new INVITE, whose challenge is a new one.
#[tokio::test]
async fn a_longer_session_is_asked_for_between_two_challenges() {
    let service = service(SipConfig { session_expires_s: 90, ..SipConfig::default() }).await;
    let phone = Phone::new(&service).await;
    let call =
        calling(service.listener.dialler(), CallOut { credentials: Some(Credentials::new("us", "secret")), ..phone.out() });
    let told =
        [("401 Unauthorized", CHALLENGE), ("422 Session Interval Too Small", "Min-SE: 600\r\n"), ("401 Unauthorized", CHALLENGE)];
    for (status, field) in told {
        let invite = phone.heard("INVITE ").await;
        phone.say(&invite, status, "t", field, "").await;
        phone.heard("ACK ").await;
    }
    let last = phone.heard("INVITE ").await;
    assert_eq!((header(&last, "Session-Expires"), header(&last, "CSeq")), (Some("600"), Some("4 INVITE")));
    assert!(header(&last, "Authorization").unwrap().contains("nonce=\"n1\""), "{last}");
    phone.say(&last, "200 OK", "t", "Session-Expires: 600;refresher=uas\r\n", OFFER).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_calls_is_asserted_to_the_trunk_and_withheld_from_the_called() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let out = CallOut { withheld: true, asserted_identity: Some("+448081570000".into()), ..phone.out() };
    let call = calling(service.listener.dialler(), out);
    let invite = phone.heard("INVITE ").await;
    assert!(header(&invite, "From").unwrap().starts_with("<sip:anonymous@anonymous.invalid>"), "{invite}");
    assert!(header(&invite, "P-Asserted-Identity").unwrap().contains("+448081570000"));
    assert_eq!(header(&invite, "Privacy"), Some("id"));
    phone.say(&invite, "486 Busy Here", "t", "", "").await;
    refused(call).await;
}

#[tokio::test]
async fn an_attended_transfer_names_the_call_that_is_taken_over() {
    let mut service = service(SipConfig::default()).await;
    let caller = Peer::new(&service, "caller").await;
    caller.call().await;
    let leg = service.leg().await;
    let agent = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), agent.out());
    let invite = agent.heard("INVITE ").await;
    agent.say(&invite, "200 OK", "agent", "", OFFER).await;
    agent.heard("ACK ").await;
    let placed = call.await.unwrap().unwrap();
    let name = async {
        loop {
            if let Some(name) = placed.name() {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let name = tokio::time::timeout(Duration::from_secs(2), name).await.unwrap();
    let to = format!("sip:agent@{}", agent.0.socket.local_addr().unwrap());
    leg.commands.send(LegCommand::Transfer { to, instead_of: Some(Box::new(name.clone())) }).await.unwrap();
    let refer = caller.expect("REFER ").await;
    let refer_to = header(&refer, "Refer-To").unwrap();
    let ours = header(&invite, "From").unwrap().split(";tag=").nth(1).unwrap();
    assert!(refer_to.contains("?Replaces=") && refer_to.contains("to-tag%3Dagent"), "{refer_to}");
    assert!(refer_to.contains(&format!("from-tag%3D{ours}")), "{refer_to}");
    assert_eq!(header(&invite, "Call-ID"), Some(name.call_id.as_str()));
}

#[tokio::test]
async fn early_media_that_never_becomes_an_answer_ends_with_a_cancel() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let out = CallOut { early_media: true, ring_timeout: Duration::from_millis(500), ..phone.out() };
    let call = calling(service.listener.dialler(), out);
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "183 Session Progress", "e", "", OFFER).await;
    let mut placed = call.await.unwrap().unwrap();
    phone.heard("CANCEL ").await;
    phone.say(&invite, "487 Request Terminated", "e", "", "").await;
    assert_eq!(super::wire_tests::end_of(&mut placed.leg).await, Some(LegEnd::Abandoned));
    assert_eq!(placed.unanswered().map(DialError::why), Some(Unanswered::NoAnswer));
}

#[tokio::test]
async fn a_refusal_after_early_media_is_known_by_its_status() {
    let service = service(SipConfig::default()).await;
    let phone = Phone::new(&service).await;
    let call = calling(service.listener.dialler(), CallOut { early_media: true, ..phone.out() });
    let invite = phone.heard("INVITE ").await;
    phone.say(&invite, "183 Session Progress", "e", "", OFFER).await;
    let mut placed = call.await.unwrap().unwrap();
    assert!(!placed.answered && placed.unanswered().is_none());
    phone.say(&invite, "486 Busy Here", "e", "", "").await;
    phone.heard("ACK ").await;
    assert_eq!(super::wire_tests::end_of(&mut placed.leg).await, Some(LegEnd::Failed));
    let said = placed.unanswered().unwrap();
    assert!(matches!(said, DialError::Refused { status: 486, .. }) && said.why() == Unanswered::Busy, "{said}");
}
