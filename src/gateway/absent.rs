//! Stands for an acquirer that this process does not speak to: a command that only writes down what a running service shall do needs its name.

use async_trait::async_trait;

use super::{Gateway, GatewayKind, GatewayRequest};
use crate::payment::BankWord;

/// An acquirer elsewhere. It never answers, so whoever asked by mistake learns nothing wrong.
#[derive(Clone, Copy, Debug)]
pub struct AbsentGateway(pub GatewayKind);

#[async_trait]
impl Gateway for AbsentGateway {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn send(&self, _request: &GatewayRequest) -> BankWord {
        BankWord::Silence
    }

    async fn resolve(&self, _request: &GatewayRequest) -> BankWord {
        BankWord::Silence
    }
}
