//! Merges the flags of a plan with those of the command line and the environment, which win.
//!
//! Core.

use std::collections::BTreeSet;

use super::{Plan, Program, Setting, is_live};

pub use crate::flags::Given;

/// The flags that a program runs with because of a Corefile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The flags as on a command line.
    pub arguments: Vec<String>,
    /// The flags of the plan that give way to given flags, one line each.
    pub conflicts: Vec<String>,
}

/// Returns the flags of `program` in `plan` that `given` does not set.
pub fn merge(plan: &Plan, program: Program, given: &Given) -> Merged {
    let mut merged = Merged::default();
    for (row, setting) in plan.settings(program) {
        match winner(setting, given) {
            None if merged.arguments.contains(&setting.argument()) => {}
            None => merged.arguments.push(setting.argument()),
            Some(_) if is_same(plan, program, (setting, given)) => {}
            Some(flag) => merged.conflicts.push(format!(
                "{}: {} gives way to {flag} of the command line or the environment",
                row.place.in_file(),
                setting.argument()
            )),
        }
    }
    merged
}

/// Returns the settings of `plan` that need a restart of `program`, which was started with
/// `before`: one line each.
pub fn restarts(before: &[String], plan: &Plan, program: Program, given: &Given) -> Vec<String> {
    let needs =
        |setting: &Setting| !is_live(program, setting.flag) && winner(setting, given).is_none();
    let mut lines = Vec::new();
    let mut now = BTreeSet::new();
    for (row, setting) in plan.settings(program).filter(|(_, setting)| needs(setting)) {
        let argument = setting.argument();
        if !before.contains(&argument) && !now.contains(&argument) {
            let place = row.place.in_file();
            lines
                .push(format!("{place}: {argument} is applied by a restart of {}", program.name()));
        }
        now.insert(argument);
    }
    let is_gone = |argument: &&String| {
        let flag = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
        !is_live(program, flag) && !given.contains_key(flag) && !now.contains(*argument)
    };
    let gone = before.iter().filter(is_gone);
    let replaced = |argument: &String| {
        let flag = argument.split('=').next();
        now.iter().any(|other| other.split('=').next() == flag)
    };
    lines.extend(gone.filter(|argument| !replaced(argument)).map(|argument| {
        format!("{argument} is no longer set, which a restart of {} applies", program.name())
    }));
    lines
}

/// Returns the flag of `given` that wins over `setting`.
fn winner(setting: &Setting, given: &Given) -> Option<String> {
    let value = setting.value.as_deref().unwrap_or_default();
    let same_domain = |flag: &str| {
        let values = given.get(flag)?;
        let found =
            values.iter().find(|it| domains(it).any(|one| domains(value).any(|its| one == its)));
        found.map(|it| format!("--{flag}={it}"))
    };
    match setting.flag {
        // Flags for other domains add up.
        "server" | "answer" => same_domain("server").or_else(|| same_domain("answer")),
        "resolv-file" => same_domain("resolv-file").or_else(|| same_domain("server")),
        "zone-ttl" => same_domain("zone-ttl"),
        "next" => same_domain("next"),
        "kubeconfig" | "context" | "api-server" | "api-server-cert" | "api-server-key"
        | "api-server-ca"
            if given.contains_key("objects") =>
        {
            Some("--objects".to_owned())
        }
        "api-server" | "api-server-cert" | "api-server-key" | "api-server-ca"
            if given.contains_key("kubeconfig") =>
        {
            Some("--kubeconfig".to_owned())
        }
        flag => {
            let values = given.get(flag)?;
            let flag = format!("--{flag}");
            Some(if values.is_empty() { flag } else { format!("{flag}={}", values.join(",")) })
        }
    }
}

/// Returns whether all values of the flag are the same on both sides.
fn is_same(plan: &Plan, program: Program, (setting, given): (&Setting, &Given)) -> bool {
    let settings = plan.settings(program).filter(|(_, other)| other.flag == setting.flag);
    let ours: BTreeSet<&str> = settings.filter_map(|(_, other)| other.value.as_deref()).collect();
    let theirs = given.get(setting.flag);
    theirs.is_some_and(|theirs| theirs.iter().map(String::as_str).collect::<BTreeSet<_>>() == ours)
}

/// Returns the domains of `/DOMAIN/.../VALUE` in lower case. The empty one means all names.
fn domains(value: &str) -> impl Iterator<Item = String> {
    let domains = match value.strip_prefix('/').and_then(|rest| {
        rest.split_once("/tcp://")
            .or_else(|| rest.split_once("/tls://"))
            .or_else(|| rest.rsplit_once('/'))
    }) {
        Some((domains, _)) => domains,
        None => "",
    };
    domains.split('/').map(|domain| domain.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::super::parser::{Outside, Text, parse};
    use super::super::{Surroundings, plan};
    use super::*;

    /// Given flags, an argument that must not be set, and the expected conflict.
    type Row<'r> = (&'r [(&'r str, &'r str)], &'r str, &'r str);

    fn planned(text: &str) -> Plan {
        let mut read = |path: &str| Ok(vec![Text { path: path.to_owned(), text: text.to_owned() }]);
        let outside = Outside { read: &mut read, variable: &|_| None };
        plan(&parse("Corefile", outside).unwrap(), Surroundings::default())
    }

    fn given(flags: &[(&str, &str)]) -> Given {
        let mut given = Given::new();
        for (flag, value) in flags {
            given.entry((*flag).to_owned()).or_default().push((*value).to_owned());
        }
        given
    }

    #[test]
    fn flags_that_are_given_win_and_conflicts_are_named() {
        let plan = planned(".:53 {\nforward . 10.0.0.1\ncache 30\n}\na.b {\nforward . 10.0.0.2\n}");
        let merged = |flags: &[(&str, &str)]| merge(&plan, Program::Dnscache, &given(flags));
        let all = merged(&[]);
        assert_eq!(all.conflicts, [""; 0]);
        for argument in ["--server=10.0.0.1", "--server=/a.b/10.0.0.2", "--max-ttl=30"] {
            assert!(all.arguments.iter().any(|it| it == argument), "{argument}: {all:?}");
        }
        let rows: [Row; 5] = [
            (
                &[("max-ttl", "60")],
                "--max-ttl=30",
                "Corefile:3: --max-ttl=30 gives way to --max-ttl=60",
            ),
            (&[("max-ttl", "30")], "--max-ttl=30", ""),
            (
                &[("server", "/A.b./10.0.0.9")],
                "--server=/a.b/10.0.0.2",
                "gives way to --server=/A.b./",
            ),
            (&[("server", "10.0.0.9")], "--server=10.0.0.1", "Corefile:2: "),
            (&[("listen", "127.0.0.1:0")], "--listen=0.0.0.0:53", "Corefile:1: "),
        ];
        for (flags, without, conflict) in rows {
            let merged = merged(flags);
            assert!(!merged.arguments.iter().any(|it| it == without), "{flags:?}: {merged:?}");
            let is_named = merged.conflicts.iter().any(|it| it.contains(conflict));
            assert!(is_named != conflict.is_empty(), "{flags:?}: {merged:?}");
        }
        let other = merged(&[("server", "/c.d/10.0.0.9")]);
        assert_eq!(other.conflicts, [""; 0]);
    }

    #[test]
    fn what_is_not_applied_at_once_is_named() {
        let none = Given::new();
        let of = |text: &str| merge(&planned(text), Program::Dnscache, &none).arguments;
        let before = of(".:53 {\nforward . 10.0.0.1\ncache 30\nbufsize 1232\n}");
        let check = |text: &str, given: &Given, expected: &[&str]| {
            let lines = restarts(&before, &planned(text), Program::Dnscache, given);
            assert_eq!(lines.len(), expected.len(), "{lines:?}");
            for (line, expected) in lines.iter().zip(expected) {
                assert!(line.contains(expected), "{line}");
            }
        };
        check(".:53 {\nforward . 10.0.0.2\ncache 60\nbufsize 1232\n}", &none, &[]);
        check(
            ".:54 {\nforward . 10.0.0.2\nbufsize 4096\n}",
            &none,
            &[
                "Corefile:1: --listen=0.0.0.0:54 is applied by a restart of dnscache",
                "--listen=[::]:54",
                "Corefile:3: --udp-size=4096",
            ],
        );
        check(".:53 {\nforward . 10.0.0.2\n}", &none, &["--udp-size=1232 is no longer set"]);
        let listen = given(&[("listen", "127.0.0.1:0"), ("udp-size", "1232")]);
        check(".:54 {\nforward . 10.0.0.2\nbufsize 4096\n}", &listen, &[]);
    }
}
