//! Offers as real peers write them, with what is agreed.

use super::tests::{LOCAL, policy};
use super::*;
use crate::clock::SeededEntropy;
use crate::media::negotiated::RtcpPath;

fn agree(offer: &str) -> (String, RemoteAudio) {
    let crlf = offer.trim_start().lines().map(|l| format!("{}\r\n", l.trim())).collect::<String>();
    parse(crlf.as_bytes()).and_then(|s| answer(&s, &LOCAL, &policy(), None, &SeededEntropy::new(1))).unwrap()
}

#[test]
fn asterisk_with_chan_pjsip() {
    let (text, remote) = agree(
        "v=0
        o=- 1867485110 1867485110 IN IP4 198.51.100.20
        s=Asterisk
        c=IN IP4 198.51.100.20
        t=0 0
        m=audio 17342 RTP/AVP 9 8 0 101
        a=rtpmap:9 G722/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-16
        a=ptime:20
        a=maxptime:150
        a=sendrecv",
    );
    assert_eq!((remote.media.codec, remote.media.payload_type, remote.port), (Codec::G722, 9, 17_342));
    assert!(text.contains("m=audio 40000 RTP/AVP 9 101\r\na=rtpmap:9 G722/8000\r\n"), "{text}");
}

#[test]
fn asterisk_with_opus_sdes_and_events_at_8000_only() {
    let (text, remote) = agree(
        "v=0
        o=- 1216538293 1216538293 IN IP4 198.51.100.20
        s=Asterisk
        c=IN IP4 198.51.100.20
        t=0 0
        m=audio 10268 RTP/SAVP 107 0 101
        a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:Nr9stSnkJLEf6vS3FgYWYYgNQ9ZJ8W0RLdnzPGe2
        a=crypto:2 AEAD_AES_256_GCM inline:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
        a=rtpmap:107 opus/48000/2
        a=fmtp:107 useinbandfec=1
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-16
        a=ptime:20
        a=maxptime:60
        a=sendrecv",
    );
    assert_eq!((remote.media.codec, remote.media.payload_type), (Codec::Opus, 107));
    assert_eq!(remote.media.telephone_event.unwrap().clock_hz, 8_000);
    assert!(remote.media.srtp.is_some() && text.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"), "{text}");
}

#[test]
fn linphone_with_best_effort_encryption_and_feedback() {
    let (text, remote) = agree(
        "v=0
        o=alice 3012 1421 IN IP4 192.0.2.55
        s=Talk
        c=IN IP4 192.0.2.55
        t=0 0
        a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
        a=record:off
        m=audio 7078 RTP/AVPF 96 97 98 0 8 18 101 99 100
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 useinbandfec=1
        a=rtpmap:97 speex/16000
        a=fmtp:97 vbr=on
        a=rtpmap:98 speex/8000
        a=fmtp:98 vbr=on
        a=fmtp:18 annexb=yes
        a=rtpmap:101 telephone-event/48000
        a=rtpmap:99 telephone-event/16000
        a=rtpmap:100 telephone-event/8000
        a=rtcp:54321
        a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR
        a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj
        a=rtcp-fb:* trr-int 5000
        a=rtcp-fb:* ccm tmmbr",
    );
    assert_eq!(remote.media.codec, Codec::Opus);
    assert_eq!(remote.media.telephone_event.map(|e| (e.payload_type, e.clock_hz)), Some((101, 48_000)));
    assert_eq!(remote.media.rtcp, RtcpPath::At("192.0.2.55:54321".parse().unwrap()));
    assert!(remote.media.srtp.is_some() && text.contains("m=audio 40000 RTP/AVPF 96 101\r\n"), "{text}");
}

#[test]
fn baresip_with_its_own_numbers() {
    let (text, remote) = agree(
        "v=0
        o=- 3908214719 1905441226 IN IP6 2001:db8::17
        s=-
        c=IN IP6 2001:db8::17
        t=0 0
        a=tool:baresip 1.0.0
        m=audio 22390 RTP/AVP 96 9 0 8 101
        b=AS:125
        a=rtpmap:96 opus/48000/2
        a=fmtp:96 stereo=1;sprop-stereo=1
        a=rtpmap:9 G722/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=rtcp:22391
        a=sendrecv
        a=label:1
        a=rtcp-rsize
        a=ssrc:1469201937 cname:sip:alice@2001:db8::17
        a=ptime:20",
    );
    assert_eq!((remote.media.codec, remote.media.payload_type), (Codec::Opus, 96));
    assert!(text.contains("a=fmtp:96 maxplaybackrate=16000;"), "{text}");
}

#[test]
fn a_carrier_trunk_behind_a_proxy_that_anchors_media() {
    let (text, remote) = agree(
        "v=0
        o=Sonus_UAC 531872 89041 IN IP4 203.0.113.40
        s=SIP Media Capabilities
        c=IN IP4 203.0.113.44
        t=0 0
        m=audio 33472 RTP/AVP 18 8 0 101 13
        a=rtpmap:18 G729/8000
        a=fmtp:18 annexb=no
        a=rtpmap:8 PCMA/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:101 telephone-event/8000
        a=fmtp:101 0-15
        a=maxptime:20
        a=sendrecv
        m=image 0 udptl t38",
    );
    assert_eq!((remote.media.codec, remote.media.comfort_noise), (Codec::Pcmu, Some(13)));
    assert_eq!(remote.address.to_string(), "203.0.113.44");
    assert!(text.contains("m=audio 40000 RTP/AVP 0 13 101\r\n") && text.ends_with("m=image 0 udptl t38\r\n"), "{text}");
}

#[test]
fn a_fax_is_refused_within_an_answer_and_not_with_the_call() {
    let (text, _) = agree(
        "v=0
        o=- 1 2 IN IP4 203.0.113.40
        s=-
        c=IN IP4 203.0.113.40
        t=0 0
        m=image 33474 udptl t38
        a=T38FaxVersion:0
        m=audio 33472 RTP/AVP 0",
    );
    assert!(text.contains("m=image 0 udptl t38\r\nm=audio 40000 RTP/AVP 0\r\n"), "{text}");
}
