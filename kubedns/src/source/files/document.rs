//! Parses the text of one file into objects, document by document.
//!
//! Core. Knows YAML streams, JSON and `kind: List`; does not know files, nor what objects mean. If
//! a document is broken, only that document is lost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::project::{
    EndpointSliceObject, Input, Kind, NamespaceObject, NodeObject, PodObject, ServiceCidrObject,
    ServiceImportObject, ServiceObject,
};
use crate::source::watch::split::Items;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A stream of documents, `---` between them.
    Yaml,
    /// One object or list.
    Json,
}

/// An object, and the labels by which it can be selected.
#[derive(Debug)]
pub struct Labelled {
    /// The line of its document, counted from 1.
    pub line: u64,
    /// The object.
    pub input: Input,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A document or list item that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1.
    pub line: u64,
    /// The error, in one line.
    pub reason: String,
}

/// Reads `text`. Passes objects to `take` and errors to `complain`. Skips objects of other kinds
/// and empty documents.
pub fn read(
    text: &str,
    format: Format,
    mut take: impl FnMut(Labelled),
    mut complain: impl FnMut(Problem),
) {
    let documents = match format {
        Format::Yaml => split(text),
        Format::Json => vec![(1, text)],
    };
    for (line, text) in documents {
        let document = match format {
            Format::Yaml => Document { line, body: Body::Yaml(text) },
            Format::Json => Document { line, body: Body::Json(text) },
        };
        if let Err(problem) = document.read(None, &mut take, &mut complain) {
            complain(problem);
        }
    }
}

/// Returns the documents of a YAML stream, each with the number of its first line. Those with only
/// comments are left out.
fn split(text: &str) -> Vec<(u64, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut at, mut line) = (0, 1);
    let mut close = |start: usize, end: usize, line: u64| {
        if !text[start..end].lines().all(is_blank) {
            documents.push((line, &text[start..end]));
        }
    };
    for row in text.split_inclusive('\n') {
        let mark = row.trim_end();
        // A `---` at the margin ends any document before it (YAML 1.2 section 9.1.2).
        if mark == "---" || mark.starts_with("--- ") || mark.starts_with("---\t") {
            close(start, at, start_line);
            (start, start_line) = (at, line);
        }
        at += row.len();
        line += 1;
    }
    close(start, at, start_line);
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    line.is_empty()
        || line.starts_with('#')
        || line.starts_with('%')
        || matches!(line, "---" | "...")
}

/// One document, or one item of a list.
struct Document<'a> {
    line: u64,
    body: Body<'a>,
}

enum Body<'a> {
    Yaml(&'a str),
    Json(&'a str),
    Item(serde_json::Value),
}

/// The fields that every object has.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeadMetadata>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HeadMetadata {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct List {
    items: Option<Vec<serde_json::Value>>,
}

impl Document<'_> {
    /// Reads one object or a list. `list_kind` is the kind of the items of a typed list.
    fn read(
        self,
        list_kind: Option<(&str, &str)>,
        take: &mut dyn FnMut(Labelled),
        complain: &mut dyn FnMut(Problem),
    ) -> Result<(), Problem> {
        let head: Head = self.parse()?;
        let (kind, version) = match (&head.kind, list_kind) {
            (Some(kind), _) => (&**kind, head.api_version.as_deref().unwrap_or_default()),
            (None, Some(of_list)) => of_list,
            (None, None) => return Err(self.problem("no Kubernetes object: kind is missing")),
        };
        if let Some(item_kind) = kind.strip_suffix("List") {
            return self.read_items((item_kind, version), take, complain);
        }
        let known = |known: &Kind| known.name() == kind && known.api_versions().contains(&version);
        let Some(known) = Kind::KNOWN.into_iter().find(known) else { return Ok(()) };
        let metadata = head.metadata.unwrap_or_default();
        if metadata.name.is_none_or(|name| name.is_empty()) {
            return Err(self.problem(&format!("{known}: metadata.name is missing")));
        }
        let input = match known {
            Kind::Service => self.parse::<ServiceObject>().map(Input::Service),
            Kind::EndpointSlice => self.parse::<EndpointSliceObject>().map(Input::EndpointSlice),
            Kind::Namespace => self.parse::<NamespaceObject>().map(Input::Namespace),
            Kind::Pod => self.parse::<PodObject>().map(Input::Pod),
            Kind::ServiceImport => self.parse::<ServiceImportObject>().map(Input::ServiceImport),
            Kind::Node => self.parse::<NodeObject>().map(Input::Node),
            Kind::ServiceCidr => self.parse::<ServiceCidrObject>().map(Input::ServiceCidr),
        };
        let (line, labels) = (self.line, metadata.labels.unwrap_or_default());
        take(Labelled { line, input: input?, labels });
        Ok(())
    }

    fn read_items(
        self,
        kind: (&str, &str),
        take: &mut dyn FnMut(Labelled),
        complain: &mut dyn FnMut(Problem),
    ) -> Result<(), Problem> {
        let kind = (!kind.0.is_empty()).then_some(kind);
        let mut read = |number: usize, document: Document<'_>| {
            if let Err(Problem { line, reason }) = document.read(kind, take, complain) {
                complain(Problem { line, reason: format!("item {number}: {reason}") });
            }
        };
        if let Body::Json(text) = self.body {
            // One item at a time, because such lists can contain a whole cluster.
            let mut items = Items::default();
            items.push(text.as_bytes());
            let mut number = 1;
            while let Some(text) = items.take().map_err(|error| self.problem(&error.to_string()))? {
                let text = str::from_utf8(text).expect("cut between ASCII characters");
                read(number, Document { line: self.line, body: Body::Json(text) });
                number += 1;
            }
            return Ok(());
        }
        let list: List = self.parse()?;
        for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
            read(index + 1, Document { line: self.line, body: Body::Item(item) });
        }
        Ok(())
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match &self.body {
            Body::Yaml(text) => {
                serde_saphyr::from_str_with_options(text, yaml_options()).map_err(|error| {
                    let line = error.location().map_or(0, |place| place.line().saturating_sub(1));
                    Problem { line: self.line + line, reason: first_line(&error) }
                })
            }
            Body::Json(text) => serde_json::from_str(text).map_err(|error| {
                let line = self.line + (error.line() as u64).saturating_sub(1);
                Problem { line, reason: first_line(&error) }
            }),
            Body::Item(value) => {
                T::deserialize(value).map_err(|error| self.problem(&first_line(&error)))
            }
        }
    }

    fn problem(&self, reason: &str) -> Problem {
        Problem { line: self.line, reason: reason.to_owned() }
    }
}

/// Returns options for errors without an excerpt of the text, and for files as large as a cluster
/// needs.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: YAML_NODES_MAX,
            max_nodes: YAML_NODES_MAX,
        },
    }
}

/// Returns the first line of an error without the position, because that counts from the document's
/// first line, and a [`Problem`] has the line in the file.
fn first_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim();
    line.rsplit_once(" at line ").map_or(line, |(reason, _)| reason).to_owned()
}

/// The most nodes of a `kind: List` in YAML: some 100,000 small objects.
const YAML_NODES_MAX: usize = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, format: Format, objects: &[&str], problems: &[(u64, &str)]) {
        let (mut taken, mut complaints) = (Vec::new(), Vec::new());
        let take = |labelled: Labelled| taken.push(labelled.input.id().to_string());
        read(text, format, take, |problem| complaints.push(problem));
        assert_eq!(taken, objects, "{text}");
        let lines: Vec<_> = complaints.iter().map(|problem| problem.line).collect();
        let expected: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, expected, "{complaints:?}");
        for (problem, (_, said)) in complaints.iter().zip(problems) {
            assert!(problem.reason.contains(said), "{said:?} is missing in {problem:?}");
            assert!(!problem.reason.contains('\n') && !problem.reason.contains(" at line "));
        }
    }

    #[test]
    fn a_broken_document_costs_itself_alone() {
        let text = "# all of it\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n\
            ---\napiVersion: v1\nkind: Service\nmetadata: {name: b\nspec: ]\n\
            --- # and one more\nkind: Namespace\napiVersion: v1\nmetadata: {name: shop}\n\
            ---\n# end\n";
        check(text, Format::Yaml, &["Service default/a", "Namespace shop"], &[(11, "")]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  namespace: shop\n";
        let spec = format!("---\n{service}spec:\n  ports: http\n");
        check(&spec, Format::Yaml, &[], &[(8, "sequence")]);
        check("apiVersion: v1\nmetadata: {}\n", Format::Yaml, &[], &[(1, "kind is missing")]);
        check("kind: Service\napiVersion: v1\n", Format::Yaml, &[], &[(1, "metadata.name")]);
        check("just text\n", Format::Yaml, &[], &[(1, "")]);
        check("{\"kind\":\n\"Service\",}", Format::Json, &[], &[(2, "")]);
    }

    #[test]
    fn lists_and_other_kinds() {
        let list = "kind: List\napiVersion: v1\nitems:\n- {kind: Service, apiVersion: v1, \
            metadata: {name: a}}\n- {kind: Service, apiVersion: v1, metadata: {name: b}, spec: 7}\n\
            - {kind: Deployment, apiVersion: apps/v1, metadata: {name: c}}\n";
        check(list, Format::Yaml, &["Service default/a"], &[(1, "item 2: ")]);
        let list = r#"{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","items":[
            {"metadata":{"name":"a-x","namespace":"shop"}},{"metadata":{}},
            {"metadata":{"name":"b-x"}}]}"#;
        check(
            list,
            Format::Json,
            &["EndpointSlice shop/a-x", "EndpointSlice default/b-x"],
            &[(1, "item 2: EndpointSlice: metadata.name is missing")],
        );
        let knative = "kind: Service\napiVersion: serving.knative.dev/v1\nmetadata: {name: a}\n";
        check(knative, Format::Yaml, &[], &[]);
        check("", Format::Yaml, &[], &[]);
        check("kind: List\napiVersion: v1\nitems: null\n", Format::Yaml, &[], &[]);
    }
}
