//! What each route answers.

use std::time::Duration;

use serde_json::{Value, json};
use thalweg::http::Limits;
use thalweg_core::{At, Epoch, Phase, ReadOptions};

use crate::client::{Answer, Client};
use crate::map_job::MapJob;
use crate::{KEYS, start};

/// One request on a new server: what it answers.
fn check(method: &str, target: &str, body: &str) -> Answer {
    let server = start(&MapJob::new(), Limits::default());
    Client::to(server.local_addr()).call(method, target, body)
}

#[test]
fn one_key() {
    for (segment, key, value) in [
        ("a", json!("a"), json!({ "count": 1 })),
        ("a%2Fb%20c%3F%26+", json!("a/b c?&+"), json!(2)),
        ("%C3%A4", json!("ä"), json!("text")),
        ("null", json!("null"), json!(null)),
        ("", json!(""), json!(0)),
    ] {
        let answer = check("GET", &format!("{KEYS}/{segment}"), "");
        assert_eq!(answer.status, 200, "{segment}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        let got = answer.json();
        let age = got["age_ms"].as_u64().expect("age_ms");
        assert!((5..60_000).contains(&age), "{age}");
        assert_eq!(got, json!({ "key": key, "value": value, "epoch": 7, "age_ms": age, "role": "active" }));
    }
}

#[test]
fn problems_have_stable_codes() {
    let long = format!("{{\"keys\":[{}1]}}", "1,".repeat(1000));
    for (method, target, body, status, code) in [
        ("GET", "/v1/jobs/orders/stores/totals/keys/none", "", 404, "key-not-found"),
        ("GET", "/v1/jobs/other/stores/totals/keys/a", "", 404, "job-not-found"),
        ("GET", "/v1/jobs/other", "", 404, "job-not-found"),
        ("GET", "/v1/jobs/orders/stores/other/keys/a", "", 404, "store-not-found"),
        ("GET", "/v1/jobs/orders/stores/secret/keys/a", "", 404, "store-not-found"),
        ("GET", "/v1/jobs/orders/stores/busy/keys/a", "", 503, "unavailable"),
        ("GET", "/v1/jobs/orders/stores/broken/keys/a", "", 500, "read-failed"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/%01", "", 400, "bad-key"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/%ff", "", 400, "bad-key"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/a?at=then", "", 400, "bad-parameter"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/a?min_epoch=x", "", 400, "bad-parameter"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/a?max_staleness=5", "", 400, "bad-parameter"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/a?limit=5", "", 400, "bad-parameter"),
        ("GET", "/v1/jobs/orders/stores/totals/keys?limit=10001", "", 400, "bad-parameter"),
        ("GET", "/v1/jobs/orders/stores/totals/keys?cursor=%20", "", 400, "bad-parameter"),
        ("POST", "/v1/jobs/orders/stores/totals/get", "{\"keys\":", 400, "bad-body"),
        ("POST", "/v1/jobs/orders/stores/totals/get", "{\"key\":[]}", 400, "bad-body"),
        ("POST", "/v1/jobs/orders/stores/totals/get", &long, 400, "bad-body"),
        ("DELETE", "/v1/jobs/orders/stores/totals/keys/a", "", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/orders/stores/totals/get", "", 405, "method-not-allowed"),
        ("GET", "/v1/jobs/orders/stores/totals/keys/a/b", "", 404, "route-not-found"),
        ("GET", "/", "", 404, "route-not-found"),
        ("GET", "/v1/jobs/orders/dead-letters", "", 404, "no-dead-letters"),
        ("GET", "/v1/jobs/orders/dead-letters/1", "", 404, "no-dead-letters"),
        ("GET", "/v1/jobs/other/dead-letters", "", 404, "job-not-found"),
        ("POST", "/v1/jobs/orders/dead-letters/drop", "{\"all\":true}", 404, "no-dead-letters"),
        ("GET", "/v1/jobs/orders/dead-letters/retry", "", 405, "method-not-allowed"),
    ] {
        let answer = check(method, target, body);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}: {}", answer.body);
        assert_eq!(answer.head.contains("retry-after: 1"), status == 503, "{}", answer.head);
    }
}

#[test]
fn read_options_reach_the_job() {
    let job = MapJob::new();
    let server = start(&job, Limits::default());
    let target = format!("{KEYS}/a?at=committed&min_epoch=3&max_staleness=500ms");
    assert_eq!(Client::to(server.local_addr()).call("GET", &target, "").status, 200);
    let expected =
        ReadOptions { at: At::Committed, min_epoch: Some(Epoch(3)), max_staleness: Some(Duration::from_millis(500)) };
    assert_eq!(*job.asked.lock().expect("lock"), [expected]);
}

#[test]
fn a_scan_goes_page_by_page() {
    let server = start(&MapJob::new(), Limits::default());
    let mut client = Client::to(server.local_addr());
    let mut keys = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        assert!(page < 10, "the scan does not end: {keys:?}");
        let got = client.call("GET", &format!("{KEYS}?limit=2{cursor}"), "").json();
        assert_eq!(got["epoch"], 7);
        for entry in got["entries"].as_array().expect("entries") {
            keys.push(entry["key"].as_str().expect("text").to_owned());
        }
        match got["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(keys, ["", "a", "a/b c?&+", "b", "null", "ä"]);
    for (query, expected) in
        [("prefix=a%2F", vec!["a/b c?&+"]), ("from=a%2F&to=c", vec!["a/b c?&+", "b"]), ("from=zz&to=z", vec![])]
    {
        let got = client.call("GET", &format!("{KEYS}?{query}"), "").json();
        let keys: Vec<&str> =
            got["entries"].as_array().expect("entries").iter().filter_map(|e| e["key"].as_str()).collect();
        assert_eq!(keys, expected, "{query}");
        assert_eq!(got["cursor"], Value::Null, "{query}");
    }
}

#[test]
fn several_keys_at_one_epoch() {
    let got = check("POST", "/v1/jobs/orders/stores/totals/get", "{\"keys\":[\"a\",12,\"null\"]}").json();
    let expected = json!([
        { "key": "a", "value": { "count": 1 }, "found": true },
        { "key": "12", "value": null, "found": false },
        { "key": "null", "value": null, "found": true },
    ]);
    assert_eq!((&got["entries"], &got["epoch"]), (&expected, &json!(7)));
}

#[test]
fn status_routes() {
    let server = start(&MapJob::new(), Limits::default());
    let mut client = Client::to(server.local_addr());
    for (target, pointer, expected) in [
        ("/v1/jobs", "/jobs/0/job", json!("orders")),
        ("/v1/jobs/orders", "/state", json!("running")),
        ("/v1/jobs/orders", "/job_id", json!("00000000000000000000000000000abc")),
        ("/v1/jobs/orders", "/progress", json!(0.25)),
        ("/v1/jobs/orders", "/lag", json!({ "records": 12, "seconds": 1.5 })),
        ("/v1/jobs/orders", "/checkpoint_failure", json!("checkpoint 6: no answer")),
        ("/v1/jobs/orders", "/checkpoint/committed_at", json!("1970-01-01T00:00:01.5Z")),
        ("/v1/jobs/orders/graph", "/nodes/0/id", json!("in")),
        ("/v1/jobs/orders/checkpoints", "/checkpoints/0/epoch", json!(5)),
        ("/v1/jobs/orders/tasks", "/tasks/0/partitions", json!([0, 1])),
        ("/v1/jobs/orders/stores", "/stores/1/query", json!(false)),
        ("/livez", "/status", json!("alive")),
        ("/readyz", "/status", json!("ready")),
        ("/openapi.json", "/openapi", json!("3.1.0")),
    ] {
        let answer = client.call("GET", target, "");
        assert_eq!(
            (answer.status, answer.json().pointer(pointer)),
            (200, Some(&expected)),
            "{target}: {}",
            answer.body
        );
    }
    let metrics = client.call("GET", "/metrics", "");
    assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", metrics.head);
    assert!(metrics.body.contains("thalweg_records_in_total{job=\"orders\"} 10\n"), "{}", metrics.body);
}

#[test]
fn openapi_routes_are_served() {
    let server = start(&MapJob::new(), Limits::default());
    let mut client = Client::to(server.local_addr());
    let document = client.call("GET", "/openapi.json", "").json();
    let values = [("{job}", "orders"), ("{store}", "totals"), ("{key}", "a")];
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let target = values.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
        for method in methods.as_object().expect("methods").keys() {
            let answer = client.call(&method.to_uppercase(), &target, "{\"keys\":[]}");
            // This job sets no records aside, and the routes of dead letters say so.
            if target.contains("/dead-letters") {
                let told = (answer.status, answer.json()["code"].clone());
                assert_eq!(told, (404, json!("no-dead-letters")), "{method} {target}: {}", answer.body);
            } else {
                assert_eq!(answer.status, 200, "{method} {target}: {}", answer.body);
            }
        }
    }
}

#[test]
fn not_ready_while_it_cannot_answer() {
    let job = MapJob::new();
    let server = start(&job, Limits::default());
    let mut client = Client::to(server.local_addr());
    for (phase, status, part) in [
        (Phase::Restoring, 503, "job orders is restoring its state"),
        (Phase::Replaying, 503, "replaying"),
        (Phase::Running, 200, "ready"),
        (Phase::Finished, 200, "ready"),
        (Phase::Stopped, 503, "stopped"),
        (Phase::Failed, 503, "the disk is full"),
    ] {
        *job.phase.lock().expect("lock") = phase;
        let answer = client.call("GET", "/readyz", "");
        assert!(answer.status == status && answer.body.contains(part), "{phase:?}: {}", answer.body);
        assert_eq!(client.call("GET", "/livez", "").status, 200);
    }
}
