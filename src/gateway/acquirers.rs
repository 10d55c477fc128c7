//! Several acquirers in one service: the main one, which charges where nobody says otherwise, and banks that accounts name. Each attempt
//! remembers by name where it went, and whatever follows goes to the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::absent::AbsentGateway;
use super::{Gateway, GatewayConfig, GatewayError, GatewayRequest};
use crate::clock::Clock;
use crate::ids::BankName;
use crate::payment::BankWord;
use crate::secret::SecretBytes;

/// All that this process speaks to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acquirers {
    main: Arc<dyn Gateway>,
    banks: Arc<BTreeMap<String, Arc<dyn Gateway>>>,
}

impl Acquirers {
    /// The main one and others, each under its own name.
    pub fn new(main: Arc<dyn Gateway>, banks: BTreeMap<BankName, Arc<dyn Gateway>>) -> Self {
        let named = |(name, bank): (BankName, _)| {
            let name = name.to_string();
            let bank: Arc<dyn Gateway> = Arc::new(Named { name: name.clone(), bank });
            (name, bank)
        };
        Self { main, banks: Arc::new(banks.into_iter().map(named).collect()) }
    }

    /// The one that charges where nobody says otherwise.
    pub fn main(&self) -> &Arc<dyn Gateway> {
        &self.main
    }

    /// The one of this name, if it is known here.
    pub fn named(&self, name: &str) -> Option<&Arc<dyn Gateway>> {
        if self.main.name() == name { Some(&self.main) } else { self.banks.get(name) }
    }

    /// Every one, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Gateway>> {
        std::iter::once(&self.main).chain(self.banks.values())
    }
}

impl From<Arc<dyn Gateway>> for Acquirers {
    fn from(main: Arc<dyn Gateway>) -> Self {
        Self::new(main, BTreeMap::new())
    }
}

impl<G: Gateway + 'static> From<Arc<G>> for Acquirers {
    fn from(main: Arc<G>) -> Self {
        Self::new(main, BTreeMap::new())
    }
}

/// Opens the banks that the config names beside the main acquirer. `journal_key` is the vault's key for sandboxes' journals.
pub fn open_banks(
    cfg: &GatewayConfig,
    journal_key: impl Fn() -> SecretBytes,
    clock: &Arc<dyn Clock>,
) -> Result<BTreeMap<BankName, Arc<dyn Gateway>>, GatewayError> {
    let open = |(name, cfg): (&BankName, &GatewayConfig)| {
        super::open(cfg, journal_key(), Arc::clone(clock)).map(|bank| (name.clone(), bank))
    };
    cfg.banks.iter().map(open).collect()
}

/// The same names where nobody may be spoken to; see [`AbsentGateway`].
pub fn absent(cfg: &GatewayConfig) -> Acquirers {
    let bank = |(name, cfg): (&BankName, &GatewayConfig)| {
        let bank: Arc<dyn Gateway> = Arc::new(AbsentGateway(cfg.kind));
        (name.clone(), bank)
    };
    Acquirers::new(Arc::new(AbsentGateway(cfg.kind)), cfg.banks.iter().map(bank).collect())
}

/// A bank under the name that the config gives it: two of a kind are two in the books.
#[derive(Debug)]
struct Named {
    name: String,
    bank: Arc<dyn Gateway>,
}

#[async_trait]
impl Gateway for Named {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        self.bank.send(request).await
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        self.bank.resolve(request).await
    }

    fn resolve_only_asks(&self) -> bool {
        self.bank.resolve_only_asks()
    }

    fn always_names_card(&self) -> bool {
        self.bank.always_names_card()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::GatewayKind;

    #[test]
    fn each_is_found_by_its_own_name() {
        let sandbox = || Arc::new(AbsentGateway(GatewayKind::Sandbox)) as Arc<dyn Gateway>;
        let banks = ["north", "south"].map(|n| (BankName::parse(n).unwrap(), sandbox()));
        let all = Acquirers::new(sandbox(), banks.into());
        assert_eq!(all.all().map(|g| g.name()).collect::<Vec<_>>(), ["sandbox", "north", "south"]);
        assert_eq!(all.named("north").map(|g| g.name()), Some("north"));
        assert_eq!(all.named("sandbox").map(|g| g.name()), Some("sandbox"));
        assert!(all.named("east").is_none());
    }
}
