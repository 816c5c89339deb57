//! A Namespace, reduced to the fact that it exists.
//!
//! Core. Knows `v1` Namespace; does not know which objects it contains.

use serde::Deserialize;

use super::{Metadata, Reason, label};
use crate::records::Namespace;

/// The fields of a Namespace that are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    /// Its metadata.
    pub metadata: Metadata,
}

impl NamespaceObject {
    /// Returns the part that the records keep. Fails if its name is not a label.
    pub fn project(&self) -> Result<Namespace, Reason> {
        let mut wire = Vec::with_capacity(self.metadata.name.len() + 1);
        label(&mut wire, "metadata.name", &self.metadata.name)?;
        Ok(Namespace { label: wire.into() })
    }
}
