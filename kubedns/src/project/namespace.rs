//! A Namespace, reduced to the fact that it is there.
//!
//! Core. Knows `v1` Namespace; does not know what lives in it.

use serde::Deserialize;

use super::{Metadata, Reason, label};
use crate::records::Namespace;

/// The fields of a Namespace that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    /// Its metadata.
    pub metadata: Metadata,
}

impl NamespaceObject {
    /// What the records keep of it. Fails where its name is no label.
    pub fn project(&self) -> Result<Namespace, Reason> {
        let mut wire = Vec::with_capacity(self.metadata.name.len() + 1);
        label(&mut wire, "metadata.name", &self.metadata.name)?;
        Ok(Namespace { label: wire.into() })
    }
}
