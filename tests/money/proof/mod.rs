//! Proof that a charge happens once, whatever breaks: a simulation of several nodes by seeds, processes that are killed for real, and a model of the
//! pure core. All three are judged by the same comparison with what the bank did ([`check`]).

mod acts;
mod audit;
mod bank;
mod check;
pub mod cluster;
mod crash;
mod dice;
mod house;
mod life;
mod model;
mod simulation;
mod stage;
mod wire;
