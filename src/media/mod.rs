//! Media: everything between the wire and 16-bit samples. Every kind of call (SIP today, a browser later) hands the
//! rest of the house a [`Leg`](leg::Leg); nobody beyond this room knows codecs, sockets or packet rates.

pub mod frame;
pub mod leg;
