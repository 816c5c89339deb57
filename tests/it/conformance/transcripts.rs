//! Checks that the answers in `kubedns/README.md` are those of kubedns for the objects of the demo.

use std::path::Path;

use kubedns::name::Name;

use super::Zone;
use crate::fixture::cluster::Cluster;

#[test]
fn the_page_shows_real_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut objects = String::new();
    for file in std::fs::read_dir(root.join("manifests/demo")).unwrap() {
        objects += "---\n";
        objects += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let mut zone = Zone::new("cluster.local").unwrap();
    zone.clusterset = Some(Name::parse("clusterset.local").unwrap());
    zone.zonal = true;
    let cluster = Cluster::of(zone, &objects);
    let page = std::fs::read_to_string(root.join("kubedns/README.md")).unwrap();
    let transcripts = page.split("```").nth(1).unwrap();
    let mut types = std::collections::BTreeSet::new();
    for transcript in transcripts.split("$ dig @127.0.0.1 -p 10053 +noall +answer ").skip(1) {
        let (question, records) = transcript.split_once('\n').unwrap();
        let (name, qtype) = question.split_once(' ').unwrap();
        let mut answers = cluster.ask(&format!("{name}. {qtype}")).answers;
        answers.sort();
        let shown = records.replace('"', ""); // around the text of TXT
        assert_eq!(answers, shown.lines().collect::<Vec<_>>(), "{question}");
        assert!(!answers.is_empty(), "{question}");
        types.insert(qtype);
    }
    assert_eq!(types.into_iter().collect::<Vec<_>>(), ["A", "AAAA", "NS", "PTR", "SRV", "TXT"]);
}
