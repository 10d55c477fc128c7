//! Media: everything between the wire and 16-bit samples. Every kind of call (SIP today, a browser later) hands the
//! rest of the house a [`Leg`](leg::Leg); nobody beyond this room knows codecs, sockets or packet rates.
//!
//! **Pacing.** No task and no timer watches a call's sockets: a few threads (`pacer`) give every session (`rtp_session`) its
//! turn each 20 ms, and in it the session fetches what has come (`udp`, with the kernel's time stamps), hands over a frame and
//! sends one.
//!
//! **What a packet meets:** `rtp_session` → `peer` (whose packet is it) → `receive` (`srtp`: is it authentic, has it come
//! before) → `jitter` (order; how long to wait, `delay` measures) → `decode` (`codec`, `conceal` for gaps, `comfort_noise` for
//! pauses) → `outbox` → `leg`. Keys come by `telephone_event`, or as tones by `dtmf`.
//!
//! **What a prompt meets:** `leg` → `playout` → `resample` (only where nobody brought it to the leg's rate before, once for all
//! calls: [`Sound::at`](leg::Sound::at)) → `send` → `codec` → `srtp` → `rtp_session`.
//!
//! **RTCP** (`rtcp` on the wire, `reports` when and what) tells both ends how the other hears; `quality` makes a mean opinion
//! score of it and `stats` the call's record. **Two legs** are joined by `bridge`. `in_process` is a second kind of call,
//! without packets, at any rate.

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

mod pacer; // turns each 20 ms, on threads of its own
mod port; // the sockets of a call
mod udp; // datagrams in batches

mod comfort_noise; // PURE: silence that was told of, or measured
mod decode; // PURE: payloads in order into frames
mod delay; // PURE: how late packets come
mod opus; // PURE: Opus at 16 kHz
mod outbox; // events to a call that may lag
mod peer; // PURE: whose packets are ours
pub mod receive; // PURE: datagrams into frames and keys
pub mod reports; // PURE: RTCP's timing and what reports tell
mod send; // PURE: prompts and keys into datagrams
