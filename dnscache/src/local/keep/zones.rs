//! The zone files as they were last read.
//!
//! Edge.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;

use shared::plain_file;

use super::Plan;
use crate::local::name::{self, Zones};
use crate::local::zone::{Zone, ZoneError, ZoneFile};

/// A zone file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZonePlan {
    /// The file, in the form of RFC 1035 section 5.
    pub file: PathBuf,
    /// The name of the zone in lower-case wire form.
    pub origin: Box<[u8]>,
    /// The zones in which unknown names are passed to the next rule.
    pub fallthrough: Option<Zones>,
    /// Subzones for which other rules answer.
    pub except: Option<Zones>,
    /// Whether the file is read only at the start.
    pub is_fixed: bool,
}

/// Why a zone file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ZoneFileError {
    /// The flag has another form.
    #[error("expected ZONE=FILE, such as corp.example=/etc/dnscache/corp.zone")]
    Form,
    /// The file cannot be read.
    #[error("zone file {0} cannot be read: {1}")]
    Read(String, std::io::Error),
    /// The file is not a zone.
    #[error("zone file {0}: {1}")]
    Zone(String, ZoneError),
}

impl std::str::FromStr for ZonePlan {
    type Err = ZoneFileError;

    /// Parses `ZONE=FILE`. Fails if the file is currently not a valid zone.
    fn from_str(text: &str) -> Result<Self, ZoneFileError> {
        let (origin, file) = text.split_once('=').ok_or(ZoneFileError::Form)?;
        let origin = name::parse(origin).ok_or(ZoneFileError::Form)?;
        let plan =
            Self { file: file.into(), origin, fallthrough: None, except: None, is_fixed: false };
        plan.read().map(|_| plan)
    }
}

impl ZonePlan {
    /// Reads and parses the file.
    pub fn read(&self) -> Result<Zone, ZoneFileError> {
        self.parse(&self.bytes()?)
    }

    fn bytes(&self) -> Result<Vec<u8>, ZoneFileError> {
        plain_file::read(&self.file, FILE_LEN_MAX)
            .map_err(|error| ZoneFileError::Read(self.file.display().to_string(), error))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Zone, ZoneFileError> {
        Zone::parse(&String::from_utf8_lossy(bytes), &self.origin)
            .map_err(|error| ZoneFileError::Zone(self.file.display().to_string(), error))
    }
}

/// A zone, and the problem of its current file.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedZone {
    pub zone: Option<Arc<Zone>>,
    pub reason: Option<String>,
    /// The hash of the contents.
    hash: Option<u64>,
}

/// Reads every zone file of `plan`. If one cannot be used, the zone in `known` is kept.
pub(super) fn read(plan: &Plan, known: Vec<LoadedZone>) -> Vec<LoadedZone> {
    let mut known = known.into_iter();
    let plans = plan.blocks.iter().flat_map(|block| &block.zone_files);
    plans.map(|plan| read_one(plan, known.next().unwrap_or_default())).collect()
}

fn read_one(plan: &ZonePlan, known: LoadedZone) -> LoadedZone {
    if plan.is_fixed && known.zone.is_some() {
        return known;
    }
    let read = plan.bytes().map(|bytes| {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&bytes);
        (bytes, Some(hash))
    });
    let (parsed, hash) = match read {
        Ok((_, hash)) if hash == known.hash => return known,
        Ok((bytes, hash)) => (plan.parse(&bytes), hash),
        Err(error) => (Err(error), None),
    };
    match parsed {
        Ok(zone) if known.zone.as_deref() == Some(&zone) => {
            LoadedZone { reason: None, hash, ..known }
        }
        Ok(zone) => LoadedZone { zone: Some(Arc::new(zone)), reason: None, hash },
        Err(error) => {
            let kept = match known.zone {
                Some(_) => "the last good zone stays",
                None => "its names are SERVFAIL",
            };
            LoadedZone { reason: Some(format!("{error}; {kept}")), hash, ..known }
        }
    }
}

/// Returns the zones of a block for its rules. Takes as many of `loaded` as the block has.
pub(super) fn files<'l>(
    plans: &[ZonePlan],
    loaded: &mut impl Iterator<Item = &'l LoadedZone>,
) -> Vec<ZoneFile> {
    let file = |(plan, loaded): (&ZonePlan, &LoadedZone)| ZoneFile {
        origin: plan.origin.clone(),
        fallthrough: plan.fallthrough.clone(),
        except: plan.except.clone(),
        zone: loaded.zone.clone(),
    };
    plans.iter().zip(loaded).map(file).collect()
}

/// The maximum of bytes of a zone file.
const FILE_LEN_MAX: u64 = 64 << 20;
