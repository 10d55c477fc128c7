//! The edge of the dialogue: one task a call. It owns the leg, listens, runs the models and the look-ups that the dialogue
//! asks for, and feeds back what they say; every decision is the dialogue's.

pub mod inference;
pub mod registry;
pub mod timeline;
