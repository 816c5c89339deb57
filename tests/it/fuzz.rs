//! The fuzz targets, run on random changes of their seeds. The changes are the same in each run.
//!
//! `FUZZ_ROUNDS` sets the number of inputs of each target. Coverage guides `.ci/fuzz`, but not
//! this.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Inputs for each target in a normal run.
const ROUNDS: u64 = 20_000;

/// xorshift64, which generates the same changes each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % bound
    }

    /// Returns a byte. Half of the time, it is one with a special meaning.
    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 10] = [0, 1, 0x0c, 0x29, 0x3f, 0x40, 0x80, 0xc0, 0xfe, 0xff];
        if self.below(2) == 0 { TELLING[self.below(TELLING.len())] } else { self.below(256) as u8 }
    }

    /// Makes a few changes to `bytes`: sets, removes or inserts bytes, or copies some from `other`.
    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(12)).min(bytes.len());
            match self.below(6) {
                0 => drop(bytes.drain(at..end)),
                1 => bytes.insert(at, self.byte()),
                2 => bytes.truncate(at),
                3 => {
                    let from = self.below(other.len());
                    let to = (from + self.below(24)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
                _ if at < bytes.len() => bytes[at] = self.byte(),
                _ => bytes.push(self.byte()),
            }
        }
    }
}

/// Returns the inputs in `text`: each is a line of hexadecimal digits. Comments are skipped.
fn seeds(text: &str) -> Vec<Vec<u8>> {
    let digits = text.lines().filter(|line| !line.starts_with('#'));
    let byte = |line: &str, at| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    digits.map(|line| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect()).collect()
}

fn drive(target: fn(&[u8]), seeds_text: &str) {
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let seeds = seeds(seeds_text);
    let mut random = Random(0x5eed_f00d);
    let check = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let digits: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("the input that breaks it: {digits}");
        }
    };
    seeds.iter().for_each(|seed| check(seed));
    for _ in 0..rounds {
        let mut input = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        random.change(&mut input, other);
        check(&input);
    }
}

#[test]
fn any_datagram_is_a_query_or_refused() {
    drive(targets::screen, include_str!("../fuzz/seeds/screen.hex"));
}

#[test]
fn any_reply_of_an_upstream_is_refused_or_comes_out_as_it_went_in() {
    drive(targets::cache, include_str!("../fuzz/seeds/cache.hex"));
}

#[test]
fn any_query_gets_a_reply_from_kubedns() {
    drive(targets::answer, include_str!("../fuzz/seeds/answer.hex"));
}

#[test]
fn any_text_is_a_corefile_or_an_error_with_its_place() {
    drive(targets::corefile, include_str!("../fuzz/seeds/corefile.hex"));
}
