//! `/explain?name=&type=`: what both programs know about a name, in one text.
//!
//! Edge. Asks their pages; holds no rule of DNS.

use std::time::Duration;

use crate::scrape::Programs;
use crate::web::Origin;

/// The explanations of kubedns and, if `may_see`, of dnscache.
pub async fn explain(programs: Programs, query: &str, may_see: bool) -> String {
    let path = format!("/explain?{query}");
    let (kubedns, dnscache) = (Origin::plain(programs.kubedns), Origin::plain(programs.dnscache));
    let (records, route) =
        tokio::join!(kubedns.get(&path, PATIENCE), dnscache.get(&path, PATIENCE));
    let body = |page: Result<crate::web::Page, String>| match page {
        Ok(page) => page.body.trim_end().to_owned(),
        Err(reason) => format!("no answer: {reason}"),
    };
    let route = match may_see {
        true => body(route),
        false => "shown to clients on this machine; see --inspect-allow".to_owned(),
    };
    format!("kubedns\n-------\n{}\n\ndnscache\n--------\n{route}\n", body(records))
}

const PATIENCE: Duration = Duration::from_secs(2);
