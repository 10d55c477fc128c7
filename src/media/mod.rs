//! Media: everything between the wire and 16-bit samples. Every kind of call (SIP today, a browser later) hands the
//! rest of the house a [`Leg`](leg::Leg); nobody beyond this room knows codecs, sockets or packet rates.
//!
//! What a packet meets: `rtp_session` (sockets, pacing) → `peer` (whose packet is it) → `receive` → `jitter` (order) → `decode`
//! (`codec`, and `conceal` for gaps) → `leg`. What a prompt meets: `leg` → `playout` → `resample` → `send` → `codec` →
//! `rtp_session`. `in_process` is a second kind of call, without packets, at any rate.

pub mod frame;
pub mod leg;

pub mod bridge; // two legs joined
pub mod config; // the section `[media]`
pub mod in_process; // legs without sockets: the simulated phone
pub mod negotiated; // what signalling settled
pub mod rtp_session; // legs over UDP

pub mod codec; // PURE: PCMU, PCMA, G.722, Opus
pub mod conceal; // PURE: lost audio
pub mod dtmf; // PURE: keys as tones
pub mod g711; // PURE: PCMU and PCMA, table by table
pub mod impair; // PURE: a bad line to measure by
pub mod jitter; // PURE: packets into order
pub mod playout; // PURE: prompts into frames
pub mod quality; // PURE: what a call sounded like, by the E-model
pub mod resample; // PURE: sample rates
pub mod rtcp; // PURE: RTCP on the wire
pub mod srtp; // PURE: SRTP and SRTCP
pub mod stats; // PURE: what a call's packets went through
pub mod telephone_event; // PURE: keys as packets, RFC 4733

pub mod wav; // files

mod pacer; // turns each 20 ms
mod port; // the sockets of a call
mod udp; // datagrams in batches

mod comfort_noise; // PURE: silence that was told of
mod decode; // PURE: payloads in order into frames
mod delay; // PURE: how late packets come
mod opus; // PURE: Opus at 16 kHz
mod outbox; // events to a call that may lag
mod peer; // PURE: whose packets are ours
pub mod receive; // PURE: datagrams into frames and keys
pub mod reports; // PURE: RTCP's timing and what reports tell
mod send; // PURE: prompts and keys into datagrams
