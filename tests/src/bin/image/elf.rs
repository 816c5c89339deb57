//! Reads from a binary which machine can run it, and whether it needs other files.
//!
//! Core. It parses the header and the program headers of 64-bit ELF (System V ABI, chapter 4).

use std::fmt;

/// An architecture that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Arch {
    /// All architectures.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Returns the target that rustc builds for.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// Writes the name that images use, which is the one of Go.
impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// Why a file cannot be the only one in an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not have the header of a 64-bit Linux program.
    #[error("it is not a little-endian 64-bit ELF file")]
    NotElf,
    /// It is for an architecture that images are not made for.
    #[error("it is for machine {0} of ELF; images are for 62 (amd64) and 183 (arm64)")]
    Machine(u16),
    /// The kernel would look for an interpreter, which an image without other files does not have.
    #[error("it is linked dynamically; build with RUSTFLAGS='-C target-feature=+crt-static'")]
    Dynamic,
}

/// Returns which machine runs `binary`. Fails if it is not a static program.
pub fn check(binary: &[u8]) -> Result<Arch, Error> {
    if !binary.starts_with(b"\x7fELF\x02\x01\x01") {
        return Err(Error::NotElf);
    }
    let number = |at: u64, bytes: usize| -> Result<u64, Error> {
        let at = usize::try_from(at).map_err(|_| Error::NotElf)?;
        let end = at.checked_add(bytes).ok_or(Error::NotElf)?;
        let field = binary.get(at..end).ok_or(Error::NotElf)?;
        Ok(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let arch = match number(E_MACHINE, 2)? {
        62 => Arch::Amd64,
        183 => Arch::Arm64,
        other => return Err(Error::Machine(other as u16)),
    };
    let (table, size) = (number(E_PHOFF, 8)?, number(E_PHENTSIZE, 2)?);
    for index in 0..number(E_PHNUM, 2)? {
        let header = table.checked_add(index * size).ok_or(Error::NotElf)?;
        if number(header, 4)? == PT_INTERP {
            return Err(Error::Dynamic);
        }
    }
    Ok(arch)
}

/// Offsets in the header.
const E_MACHINE: u64 = 18;
const E_PHOFF: u64 = 32;
const E_PHENTSIZE: u64 = 54;
const E_PHNUM: u64 = 56;
/// The type of the program header that names an interpreter.
const PT_INTERP: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a header, followed by one program header of that type.
    fn elf(machine: u16, kind: u32) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&1_u16.to_le_bytes());
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file
    }

    #[test]
    fn static_programs_of_known_machines_are_taken() {
        let mut endless = elf(62, 1);
        endless[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        let rows = [
            (elf(62, 1), Ok(Arch::Amd64)),
            (elf(183, 2), Ok(Arch::Arm64)),
            (elf(62, 3), Err(Error::Dynamic)),
            (elf(22, 1), Err(Error::Machine(22))),
            (elf(62, 1)[..100].to_vec(), Ok(Arch::Amd64)),
            (elf(62, 1)[..66].to_vec(), Err(Error::NotElf)),
            (elf(62, 1)[..19].to_vec(), Err(Error::NotElf)),
            (endless, Err(Error::NotElf)),
            (b"#!/bin/sh\n".to_vec(), Err(Error::NotElf)),
            (Vec::new(), Err(Error::NotElf)),
        ];
        for (index, (file, expected)) in rows.into_iter().enumerate() {
            assert_eq!(check(&file), expected, "row {index}");
        }
    }

    /// The test itself is a program of this machine, and cargo linked it in its default way.
    #[test]
    fn an_ordinary_program_is_not_static() {
        let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let expected =
            if cfg!(target_feature = "crt-static") { None } else { Some(Error::Dynamic) };
        assert_eq!(check(&itself).err(), expected);
    }
}
