//! Known answers of the vendors, and what must not pass.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

const NOW: i64 = 1_772_438_400;

struct Case {
    kind: HookKind,
    secret: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    now: i64,
}

impl Case {
    fn new(kind: HookKind, secret: &'static str, headers: &[(&'static str, &str)], body: &str) -> Case {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Case { kind, secret, headers, body: body.as_bytes().to_vec(), now: NOW }
    }

    fn at(self, now: i64) -> Case {
        Case { now, ..self }
    }

    fn holds_with(&self, secrets: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let scheme = Scheme::of(self.kind);
        let keys: Vec<Vec<u8>> = secrets.iter().map(|secret| scheme.key(secret).unwrap()).collect();
        let tolerance = Duration::from_secs(300);
        let request = Request { headers: &headers, body: &self.body, now: self.now, tolerance };
        scheme.verify(&keys, &request).is_ok()
    }

    fn holds(&self) -> bool {
        self.holds_with(&[self.secret])
    }
}

/// Secrets, bodies and signatures as the vendors print them; where one prints none, made with
/// `openssl dgst -sha256 -hmac SECRET`.
fn known() -> Vec<Case> {
    vec![
        // https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
        Case::new(
            HookKind::GitHub,
            "It's a Secret to Everybody",
            &[(
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            "Hello, World!",
        ),
        // https://developer.atlassian.com/cloud/jira/platform/webhooks/#secure-admin-webhooks
        Case::new(
            HookKind::Jira,
            "It's a Secret to Everybody",
            &[("x-hub-signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9")],
            "Hello World!",
        ),
        // https://docs.slack.dev/authentication/verifying-requests-from-slack/
        Case::new(
            HookKind::Slack,
            "8f742231b10e8888abcd99yyyzzz85a5",
            &[
                ("x-slack-request-timestamp", "1531420618"),
                (
                    "x-slack-signature",
                    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                ),
            ],
            "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        )
        .at(1_531_420_618),
        // https://github.com/standard-webhooks/standard-webhooks, the example of the specification's libraries
        Case::new(
            HookKind::Standard,
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &[
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ],
            r#"{"test": 2432232314}"#,
        )
        .at(1_614_265_330),
        // The scheme of https://developer.pagerduty.com/docs/verifying-webhook-signatures; a value of openssl's.
        Case::new(
            HookKind::PagerDuty,
            "ab12cd34",
            &[("x-pagerduty-signature", "v1=032c9d726e4fd3cfc39c5f1d5aae13d6f51ad57f569800bdf9d4ed9ea989492c")],
            r#"{"event":{"id":"01A","event_type":"incident.triggered"}}"#,
        ),
        // The scheme of https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
        Case::new(
            HookKind::Sentry,
            "client-secret",
            &[("sentry-hook-signature", "b4fba633488444ec6d0453d0af0b3f8df059212a5f4ab4c78d9cb74599d89f22")],
            r#"{"action":"created","data":{"issue":{"id":"1"}}}"#,
        ),
        // The scheme of https://linear.app/developers/webhooks#securing-webhooks
        Case::new(
            HookKind::Linear,
            "lin_wh_1",
            &[("linear-signature", "b2157f52e8e96e25db83b1da51c2ba1a3dedb33dc06998a776cae56e45b95233")],
            r#"{"action":"create","type":"Issue","webhookTimestamp":1772438400000}"#,
        ),
        // https://docs.gitlab.com/user/project/integrations/webhooks/: the token as it is.
        Case::new(HookKind::GitLab, "a token", &[("x-gitlab-token", "a token")], "{}"),
        Case::new(HookKind::Jenkins, "a token", &[("authorization", "Bearer a token")], "{}"),
        // RFC 7617: base64 of `jenkins:a token`.
        Case::new(HookKind::Opsgenie, "a token", &[("authorization", "Basic amVua2luczphIHRva2Vu")], "{}"),
        Case::new(HookKind::ArgoCd, "jenkins:a token", &[("authorization", "Basic amVua2luczphIHRva2Vu")], "{}"),
        Case::new(HookKind::CdEvents, "a token", &[("x-webhook-token", "a token")], "{}"),
    ]
}

#[test]
fn the_known_answers_hold() {
    for case in known() {
        assert!(case.holds(), "{:?}", case.kind);
    }
}

fn is_signed(kind: HookKind) -> bool {
    !matches!(
        kind,
        HookKind::GitLab | HookKind::Jenkins | HookKind::Opsgenie | HookKind::ArgoCd | HookKind::CdEvents
    )
}

#[test]
fn every_changed_byte_of_the_body_is_noticed() {
    for case in known().into_iter().filter(|case| is_signed(case.kind)) {
        for at in 0..case.body.len() {
            let mut body = case.body.clone();
            body[at] ^= 1;
            let changed =
                Case { body, headers: case.headers.clone(), ..Case::new(case.kind, case.secret, &[], "") };
            assert!(!changed.at(case.now).holds(), "{:?} byte {at}", case.kind);
        }
        let longer =
            Case { body: [&case.body[..], b" "].concat(), ..Case::new(case.kind, case.secret, &[], "") };
        assert!(!Case { headers: case.headers.clone(), now: case.now, ..longer }.holds(), "{:?}", case.kind);
    }
}

#[test]
fn wrong_missing_doubled_and_broken_headers_are_denied() {
    for case in known() {
        let with = |headers: Vec<(&'static str, String)>| Case {
            headers,
            body: case.body.clone(),
            now: case.now,
            ..Case::new(case.kind, case.secret, &[], "")
        };
        assert!(!with(Vec::new()).holds(), "{:?} without headers", case.kind);
        for (at, (name, value)) in case.headers.iter().enumerate() {
            let replaced = |new: Vec<String>| {
                let mut headers = case.headers.clone();
                headers.remove(at);
                headers.extend(new.into_iter().map(|value| (*name, value)));
                with(headers).holds()
            };
            assert!(!replaced(vec![]), "{:?} without {name}", case.kind);
            assert!(!replaced(vec![String::new()]), "{:?} with an empty {name}", case.kind);
            assert!(!replaced(vec![value.clone(), value.clone()]), "{:?} with {name} twice", case.kind);
            assert!(!replaced(vec![value[..value.len() - 1].to_owned()]), "{:?} with {name} cut", case.kind);
            assert!(!replaced(vec![format!("{value}0")]), "{:?} with {name} longer", case.kind);
            assert!(!replaced(vec!["x".repeat(100_000)]), "{:?} with {name} of 100 kB", case.kind);
            let last = value.len() - 3;
            let flipped: String = value
                .chars()
                .enumerate()
                .map(|(i, c)| if i == last { if c == '0' { '1' } else { '0' } } else { c })
                .collect();
            assert!(!replaced(vec![flipped]), "{:?} with {name} changed", case.kind);
        }
    }
}

#[test]
fn two_secrets_hold_while_one_is_being_changed() {
    for case in known() {
        let other = if matches!(case.kind, HookKind::Standard) { "whsec_AAAA" } else { "another secret" };
        assert!(case.holds_with(&[other, case.secret]), "{:?}", case.kind);
        assert!(case.holds_with(&[case.secret, other]), "{:?}", case.kind);
        assert!(!case.holds_with(&[other]), "{:?}", case.kind);
    }
}

#[test]
fn one_of_several_signatures_is_enough() {
    for kind in [HookKind::PagerDuty, HookKind::Standard] {
        let mut case = known().into_iter().find(|case| case.kind == kind).unwrap();
        let (name, good) = case.headers.pop().unwrap();
        let zeros = "0".repeat(64);
        let several = match kind {
            HookKind::PagerDuty => format!("v1={zeros}, {good}"),
            _ => format!("v1a,AAAA v2,AAAA v1,AAAA {good}"),
        };
        case.headers.push((name, several));
        assert!(case.holds(), "{kind:?}");
        // Another version of the same bytes is another scheme.
        case.headers.pop();
        case.headers.push((name, good.replace("v1", "v2")));
        assert!(!case.holds(), "{kind:?}");
    }
}

#[test]
fn old_and_future_deliveries_are_denied_where_the_time_is_signed() {
    for case in known() {
        let timed = matches!(case.kind, HookKind::Slack | HookKind::Standard | HookKind::Linear);
        for (away, held) in
            [(299, true), (300, true), (301, false), (-299, true), (-301, false), (86_400, false)]
        {
            let moved = Case {
                headers: case.headers.clone(),
                body: case.body.clone(),
                ..Case::new(case.kind, case.secret, &[], "")
            };
            assert_eq!(moved.at(case.now + away).holds(), held || !timed, "{:?} {away} s", case.kind);
        }
    }
}

#[test]
fn a_time_is_digits() {
    for text in ["", "-1", "+1", " 1", "1.5", "1e9", "99999999999999999999", "\u{661}"] {
        assert_eq!(seconds(text), Err(Denied), "{text:?}");
    }
    assert_eq!(seconds("1531420618"), Ok(1_531_420_618));
}

#[test]
fn gitlab_signs_as_standard_webhooks_do_when_it_has_a_signing_token() {
    let standard = known().into_iter().find(|case| case.kind == HookKind::Standard).unwrap();
    let signed = Case { kind: HookKind::GitLab, ..standard };
    assert!(signed.holds());
    // A signed delivery is not rescued by the token.
    let mut both = Case { kind: HookKind::GitLab, body: b"{}".to_vec(), ..signed };
    both.headers.push(("x-gitlab-token", both.secret.to_owned()));
    assert!(!both.holds());
}

#[test]
fn a_secret_that_is_no_key_is_refused_without_showing_it() {
    let problem = Scheme::Standard.key("whsec_not base64!").unwrap_err();
    assert!(!problem.contains("not base64!"), "{problem}");
    assert!(Scheme::Slack.key("").is_err());
}

#[test]
fn svix_wrote_its_own_name_before_there_was_a_standard() {
    let mut case = known().into_iter().find(|case| case.kind == HookKind::Standard).unwrap();
    for (name, _) in &mut case.headers {
        *name = match *name {
            "webhook-id" => "svix-id",
            "webhook-timestamp" => "svix-timestamp",
            _ => "svix-signature",
        };
    }
    assert!(case.holds());
    assert!(!Case { kind: HookKind::GitHub, ..case }.holds());
}
