//! The configuration directory on a real file system; knows no program.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A directory in which version `version` of a ConfigMap is mounted as the kubelet does it.
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
    let bad = wait_for(&mut state, |state| state.error.is_some()).await;
    assert_eq!((upstream(&bad).as_str(), bad.applied, bad.refused), ("10.0.0.2", 2, 1));
    assert!(!bad.check().has_failed() && bad.check() != Check::passed("config-dir"));

    mount(&directory, "4", &[]);
    let reset = wait_for(&mut state, |state| state.error.is_none()).await;
    assert_eq!(*reset.keys, Keys::default(), "a key that is gone means its default");
    stopping.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn nothing_there_means_defaults_and_what_is_no_key_file_is_ignored() {
    let directory = TempDir::new().unwrap();
    assert!(open(None).0.borrow().error.is_none());
    let missing = directory.path().join("missing");
    assert!(open(Some(&missing)).0.borrow().error.is_none());
    std::fs::write(directory.path().join(".hidden"), [0xff]).unwrap();
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    assert!(open(Some(directory.path())).0.borrow().error.is_none());
    std::fs::write(directory.path().join("federations"), "a=b.example").unwrap();
    assert_eq!(open(Some(directory.path())).0.borrow().keys.federations.len(), 1);
    std::fs::write(directory.path().join("stray"), "").unwrap();
    let state = open(Some(directory.path())).0.borrow().clone();
    assert_eq!(*state.keys, Keys::default(), "bad at the start: the defaults");
    assert!(state.error.unwrap().contains("stray"));
}

#[test]
fn what_cannot_be_read_is_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("stubDomains");
    std::fs::write(&path, vec![b' '; FILE_LEN_MAX as usize + 1]).unwrap();
    let error = look(directory.path()).unwrap_err();
    assert!(error.contains("stubDomains is larger than"), "{error}");
    std::fs::remove_file(&path).unwrap();
    symlink("nowhere", &path).unwrap();
    assert!(look(directory.path()).unwrap_err().contains("stubDomains"));
    let error = look(&directory.path().join("file")).map(|files| files.len());
    assert_eq!(error, Ok(0));
}
