//! The flags of further zones with the same objects.
//!
//! Text becomes checked values here; what the zones hold is for the records to know.

use std::time::Duration;

use shared::flags;

use super::domain;
use crate::name::{Name, push_label};
use crate::records::ExternalZones;

/// The flags of further zones.
#[derive(Clone, Debug, clap::Args)]
pub struct ViewFlags {
    /// Further domain under which the records of --domain are answered as well (repeatable);
    /// reverse names point to --domain [default: none]
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub extra_domain: Vec<Name>,
    /// Domain of the addresses by which Services are reached from outside, SERVICE.NAMESPACE.NAME
    /// (repeatable): their externalIPs and those of their load balancers [default: none]
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub external_domain: Vec<Name>,
    /// Label below --external-domain for the name server of the zone
    #[arg(long, value_name = "LABEL", value_parser = label, default_value = "dns")]
    pub external_apex: Box<[u8]>,
    /// TTL of records below --external-domain in seconds, 0 to 3600
    #[arg(long, value_name = "SECONDS", value_parser = flags::seconds(0, 3_600),
        default_value = "5")]
    pub external_ttl: Duration,
    /// Answer below --external-domain with the endpoints of headless Services without external
    /// addresses [default: off]
    #[arg(long)]
    pub external_headless: bool,
}

impl ViewFlags {
    /// The zones of external addresses.
    pub fn external(&self) -> ExternalZones {
        ExternalZones {
            domains: self.external_domain.clone(),
            label: self.external_apex.clone(),
            ttl_secs: self.external_ttl.as_secs() as u32,
            headless: self.external_headless,
        }
    }

    /// Every domain, with the flag that names it.
    pub(super) fn domains(&self) -> impl Iterator<Item = (&'static str, &Name)> {
        let extra = self.extra_domain.iter().map(|name| ("--extra-domain", name));
        extra.chain(self.external_domain.iter().map(|name| ("--external-domain", name)))
    }
}

/// A label in wire form.
fn label(text: &str) -> Result<Box<[u8]>, LabelError> {
    let mut wire = Vec::new();
    push_label(&mut wire, text, |_| false).map_err(|_| LabelError)?;
    Ok(wire.into())
}

/// A text is not one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one label of letters, digits and '-', such as dns")]
pub struct LabelError;
