//! Tests of the configuration directory on a real file system, independent of the programs.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::ready::Finding;

/// Mounts version `version` of a ConfigMap in `directory` as the kubelet does.
fn mount(directory: &TempDir, version: &str, files: &[(&str, &str)]) {
    let root = directory.path();
    let folder = root.join(format!("..{version}"));
    std::fs::create_dir(&folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
        if !root.join(name).exists() {
            symlink(Path::new("..data").join(name), root.join(name)).unwrap();
        }
    }
    symlink(format!("..{version}"), root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
}

async fn wait_for(
    state: &mut watch::Receiver<State>,
    condition: impl FnMut(&State) -> bool,
) -> State {
    let reached = tokio::time::timeout(Duration::from_secs(20), state.wait_for(condition)).await;
    reached.expect("within the deadline").expect("the follower runs").clone()
}

#[tokio::test]
async fn a_swap_is_seen_and_a_bad_version_leaves_the_last_good() {
    let directory = TempDir::new().unwrap();
    mount(&directory, "1", &[("upstreamNameservers", r#"["10.0.0.1"]"#)]);
    let (mut state, follower) = open(Some(directory.path()));
    let upstream = |state: &State| state.keys.upstream_nameservers[0].ip().to_string();
    assert_eq!(upstream(&state.borrow()), "10.0.0.1");
    assert_eq!(state.borrow().check(), Check::passed("config-dir"));

    let stopping = CancellationToken::new();
    let running = tokio::spawn(follower.run(stopping.clone()));
    mount(&directory, "2", &[("upstreamNameservers", r#"["10.0.0.2"]"#)]);
    wait_for(&mut state, |state| upstream(state) == "10.0.0.2").await;

    mount(&directory, "3", &[("upstreamNameservers", r#"["nowhere"]"#)]);
    let bad = wait_for(&mut state, |state| !state.refused.is_empty()).await;
    assert_eq!((upstream(&bad).as_str(), bad.applied, bad.refusals), ("10.0.0.2", 2, 1));
    assert!(!bad.check().has_failed() && bad.check() != Check::passed("config-dir"));

    mount(&directory, "4", &[]);
    let reset = wait_for(&mut state, |state| state.refused.is_empty()).await;
    assert_eq!(*reset.keys, Keys::default(), "a key that is gone means its default");
    stopping.cancel();
    running.await.unwrap().unwrap();
}

#[test]
fn nothing_there_means_defaults_and_what_is_no_key_file_is_ignored() {
    let directory = TempDir::new().unwrap();
    let refused = |directory: Option<&Path>| open(directory).0.borrow().refused.to_vec();
    assert!(refused(None).is_empty());
    let missing = directory.path().join("missing");
    assert!(refused(Some(&missing)).is_empty());
    std::fs::write(directory.path().join(".hidden"), [0xff]).unwrap();
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    assert!(refused(Some(directory.path())).is_empty());
    std::fs::write(directory.path().join("federations"), "a=b.example").unwrap();
    assert_eq!(open(Some(directory.path())).0.borrow().keys.federations.len(), 1);
}

/// Files next to good upstreams, or instead of them.
type Given<'g> = &'g [(&'g str, &'g str)];

/// The refusals at the start, and the stub domains and upstreams that are applied nevertheless.
#[test]
fn what_is_refused_at_the_start_is_refused_alone_and_named() {
    let good = (r#""good.corp": ["10.0.0.1"]"#, r#"["192.0.2.1"]"#);
    let large = " ".repeat(FILE_LEN_MAX as usize + 1);
    let bad_stub = format!(r#"{{{}, "b.corp": ["not an address!"]}}"#, good.0);
    let good_stubs = format!("{{{}}}", good.0);
    let rows: [(Given<'_>, &[&str], &str); 6] = [
        (&[("stubDomains", &bad_stub)], &["good.corp"], "\"not an address!\" of \"b.corp\""),
        (&[("stubDomains", &good_stubs), ("stray", "")], &["good.corp"], "key \"stray\""),
        (&[("stubDomains", "{")], &[], "stubDomains is not a JSON object"),
        (&[("stubDomains", &large)], &[], "stubDomains: larger than 1048576 bytes"),
        (&[("federations", "a=b=c,d=e.f")], &[], "\"a=b=c\" is not NAME=DOMAIN"),
        (
            &[("stubDomains", &good_stubs), ("upstreamNameservers", r#"["192.0.2.1", "x"]"#)],
            &["good.corp"],
            "upstreamNameservers: \"x\"",
        ),
    ];
    for (files, domains, reason) in rows {
        let directory = TempDir::new().unwrap();
        std::fs::write(directory.path().join("upstreamNameservers"), good.1).unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let state = open(Some(directory.path())).0.borrow().clone();
        assert!(state.keys.stub_domains.keys().eq(domains), "{reason}: {:?}", state.keys);
        assert_eq!(state.keys.upstream_nameservers.len(), 1, "{reason}");
        let [refused] = &state.refused[..] else { panic!("{reason}: {:?}", state.refused) };
        assert!(refused.contains(reason), "{refused}");
        assert!(refused.ends_with("; it is left out"), "{refused}");
        let Finding::Warning(said) = state.check().finding else { panic!("{reason}") };
        assert!(said.contains(reason), "{said}");
    }
}

/// Every kind of refusal of a value that was good before: it must stay, and all other values must
/// be applied.
#[test]
fn what_is_refused_later_keeps_its_last_good_value() {
    let rows = [
        (r#"{"a.corp": ["10.0.0.256"], "b.corp": ["10.0.0.2"]}"#, "10.0.0.1:53", "server"),
        (r#"{"a.corp": [], "b.corp": ["10.0.0.2"]}"#, "10.0.0.1:53", "no server"),
        (r#"{"a.corp": "10.0.0.1", "b.corp": ["10.0.0.2"]}"#, "10.0.0.1:53", "an array"),
        (r#"{"a.corp": [53, "10.0.0.9"], "b.corp": ["10.0.0.2"]}"#, "10.0.0.9:53", "server 53"),
        (r#"{"a.corp": ["0.0.0.0"], "b.corp": ["10.0.0.2"]}"#, "10.0.0.1:53", "one host"),
        (
            r#"{"a.corp": ["10.0.0.9"], "A.corp.": ["10.0.0.8"], "b.corp": ["10.0.0.2"]}"#,
            "10.0.0.9:53",
            "twice",
        ),
    ];
    let directory = TempDir::new().unwrap();
    let write = |text: &str| std::fs::write(directory.path().join("stubDomains"), text).unwrap();
    for (text, expected, reason) in rows {
        write(r#"{"a.corp": ["10.0.0.1"]}"#);
        let (state, mut follower) = open(Some(directory.path()));
        write(text);
        follower.apply(look(directory.path()));
        let state = state.borrow();
        let a = &state.keys.stub_domains["a.corp"];
        assert_eq!(a[..], [Server::Address(expected.parse().unwrap())], "{text}");
        assert!(state.keys.stub_domains.contains_key("b.corp"), "{text}");
        let refused = &state.refused[0];
        assert!(refused.contains(reason), "{refused}");
        let stays = expected == "10.0.0.1:53";
        assert_eq!(refused.ends_with("; its last good value stays"), stays, "{refused}");
        assert_eq!((state.applied, state.refusals), (1, 1));
    }
}

#[test]
fn a_directory_or_file_that_cannot_be_read_leaves_what_there_was() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("stubDomains");
    std::fs::write(&path, r#"{"a.corp": ["10.0.0.1"]}"#).unwrap();
    let (state, mut follower) = open(Some(directory.path()));
    std::fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    follower.apply(look(directory.path()));
    assert_eq!(state.borrow().keys.stub_domains.len(), 1);
    assert!(state.borrow().refused[0].contains("stubDomains: No such file"));
    std::fs::remove_file(&path).unwrap();
    for number in 0..=FILES_MAX {
        std::fs::write(directory.path().join(number.to_string()), "").unwrap();
    }
    follower.apply(look(directory.path()));
    assert_eq!(state.borrow().keys.stub_domains.len(), 1);
    assert!(state.borrow().refused[0].contains("more than 64 files; its last good value stays"));
    assert_eq!(look(&directory.path().join("missing")), Contents::default());
}

#[test]
fn a_program_can_refuse_single_keys() {
    let directory = TempDir::new().unwrap();
    let stubs = r#"{"a.corp": ["10.0.0.1"], "cluster.local": ["10.0.0.2"]}"#;
    std::fs::write(directory.path().join("stubDomains"), stubs).unwrap();
    let demand = |keys: &mut Keys| match keys.stub_domains.remove("cluster.local") {
        Some(_) => vec!["cluster.local is ours".into()],
        None => Vec::new(),
    };
    let state = open_with(Some(directory.path()), Box::new(demand)).0.borrow().clone();
    assert!(state.keys.stub_domains.keys().eq(["a.corp"]));
    assert_eq!(state.refused[..], ["cluster.local is ours".into()]);
}
