//! One request and its answer, as the gateway saw them.

use weir_dialects::{answer::Watch, used};
use weir_wire::proto::usage::{Kind, ModelUsage, Outcome, UsageEvent, Witness};

/// What is known of a request once its headers are.
#[derive(Debug)]
pub struct Exchange {
    tenant: String,
    tenant_context: String,
    request_id: String,
    class: String,
    started_ms: u64,
    status: u32,
    watch: Option<Watch>,
    first_byte_ms: Option<u64>,
    ended: bool,
}

/// How the exchange ended, as the host tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The host says that the client went away.
    ClientGone,
    /// Nothing of that kind.
    Other,
}

impl Exchange {
    /// A request whose headers passed at `now_ms` (Unix epoch), with the values
    /// of Weir's own headers.
    #[must_use]
    pub fn begin(
        tenant: String,
        tenant_context: String,
        request_id: String,
        class: String,
        now_ms: u64,
    ) -> Self {
        Self {
            tenant,
            tenant_context,
            request_id,
            class,
            started_ms: now_ms,
            status: 0,
            watch: None,
            first_byte_ms: None,
            ended: false,
        }
    }

    /// The answer's headers passed.
    pub fn answer(&mut self, status: u32, content_type: &[u8], end_of_stream: bool) {
        self.status = status;
        self.ended = end_of_stream;
        self.watch = Some(Watch::new(content_type));
    }

    /// Bytes of the answer passed; `now_ms` is asked for at the first of them.
    pub fn body(&mut self, bytes: &[u8], end_of_stream: bool, now_ms: impl FnOnce() -> u64) {
        if !bytes.is_empty() && self.first_byte_ms.is_none() {
            self.first_byte_ms = Some(now_ms());
        }
        if let Some(watch) = &mut self.watch {
            watch.feed(bytes);
        }
        self.ended |= end_of_stream;
    }

    /// The event to send, once the host has nothing more to say. `end` is asked
    /// for where the answer did not come to its end, `request_bytes` (of its
    /// body) where the answer reported no usage.
    #[must_use]
    pub fn finish(
        self,
        end: impl FnOnce() -> End,
        request_bytes: impl FnOnce() -> u64,
        now_ms: u64,
    ) -> UsageEvent {
        let outcome = self.outcome(end);
        UsageEvent {
            kind: Kind::Request.into(),
            // One event a request and witness: sent again, it is the same.
            event_id: format!("{}/gw", self.request_id),
            witness: Witness::Gateway.into(),
            usage: self.usage(outcome, request_bytes),
            outcome: outcome.into(),
            status: self.status,
            started_at_ms: i64::try_from(self.started_ms).unwrap_or(i64::MAX),
            duration_ms: now_ms.saturating_sub(self.started_ms),
            time_to_first_token_ms: self
                .first_byte_ms
                .map(|t| t.saturating_sub(self.started_ms)),
            request_id: self.request_id,
            tenant: self.tenant,
            request_class: self.class,
            tenant_context: self.tenant_context,
            model_asked: String::new(),
        }
    }

    fn outcome(&self, end: impl FnOnce() -> End) -> Outcome {
        let failed = self.watch.as_ref().is_some_and(Watch::has_error);
        let whole = self.ended && self.watch.as_ref().is_some_and(Watch::is_done);
        match self.status {
            400..500 => Outcome::Rejected,
            500.. => Outcome::UpstreamError,
            _ if failed => Outcome::UpstreamError,
            _ if whole => Outcome::Completed,
            _ if end() == End::ClientGone => Outcome::ClientDisconnected,
            _ => Outcome::UpstreamError,
        }
    }

    fn usage(&self, outcome: Outcome, request_bytes: impl FnOnce() -> u64) -> Vec<ModelUsage> {
        let Some(watch) = &self.watch else {
            return Vec::new();
        };
        let reported = watch.usage();
        if reported.is_none() && outcome == Outcome::Rejected {
            return Vec::new();
        }
        let base = ModelUsage {
            model_served: watch.model().unwrap_or_default().to_owned(),
            attempt: 1,
            ..ModelUsage::default()
        };
        // A router's stream reports its usage to clients that asked for it
        // alone: for the others an estimate is all that a gateway can say. The
        // router's own witness replaces it.
        let seen = used::Seen {
            reported,
            begun: watch.begun(),
            completed: outcome == Outcome::Completed,
            output_bytes: watch.text_bytes(),
        };
        vec![used::used(
            base,
            seen,
            || used::estimate(request_bytes()),
            || used::estimate(watch.text_bytes()),
        )]
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use weir_wire::proto::usage::UsageSource;

    use super::*;

    const STREAM: &str = include_str!("../../../../contracts/fixtures/openai-chat-stream.txt");
    const JSON: &str = include_str!("../../../../contracts/fixtures/openai-chat.json");

    fn exchange() -> Exchange {
        Exchange::begin("a".into(), "ctx".into(), "id".into(), "chat".into(), 1_000)
    }

    fn tokens(event: &UsageEvent) -> Vec<[u64; 4]> {
        event
            .usage
            .iter()
            .filter(|u| u.source() == UsageSource::Reported)
            .map(|u| {
                [
                    u.input_tokens,
                    u.cached_input_tokens,
                    u.output_tokens,
                    u.reasoning_tokens,
                ]
            })
            .collect()
    }

    #[test]
    fn a_whole_answer_is_completed_with_its_tokens() {
        let mut json = exchange();
        json.answer(200, b"application/json", false);
        json.body(JSON.as_bytes(), true, || 1_040);
        let event = json.finish(|| End::Other, || 9, 1_050);
        assert_eq!(event.outcome(), Outcome::Completed);
        assert_eq!(tokens(&event), [[3, 16, 6, 4]]);
        assert_eq!(event.usage[0].model_served, "gpt-4o-2024-08-06");
        assert_eq!(event.duration_ms, 50);
        assert_eq!(event.time_to_first_token_ms, Some(40));

        let mut stream = exchange();
        stream.answer(200, b"text/event-stream", false);
        for byte in STREAM.as_bytes() {
            stream.body(&[*byte], false, || 1_001);
        }
        stream.body(b"", true, || 1_002);
        let event = stream.finish(|| End::Other, || 9, 1_002);
        assert_eq!(event.outcome(), Outcome::Completed);
        assert_eq!(tokens(&event), [[19, 0, 10, 0]]);
    }

    #[track_caller]
    fn check(status: u32, body: &str, ended: bool, end: End, expected: Outcome) {
        let mut exchange = exchange();
        exchange.answer(status, b"text/event-stream", false);
        exchange.body(body.as_bytes(), ended, || 1_001);
        let event = exchange.finish(|| end, || 9, 1_002);
        assert_eq!(event.outcome(), expected, "{status} {body:?}");
    }

    #[test]
    fn each_end_has_its_outcome() {
        let half = &STREAM[..STREAM.len() / 2];
        check(
            200,
            half,
            false,
            End::ClientGone,
            Outcome::ClientDisconnected,
        );
        check(200, half, false, End::Other, Outcome::UpstreamError);
        // A stream that ends without [DONE] was cut, however clean it looks.
        check(200, half, true, End::Other, Outcome::UpstreamError);
        check(429, "{}", true, End::Other, Outcome::Rejected);
        check(503, "{}", true, End::Other, Outcome::UpstreamError);
        let error = "data: {\"error\":{\"message\":\"m\"}}\n\ndata: [DONE]\n\n";
        check(200, error, true, End::Other, Outcome::UpstreamError);
    }

    #[test]
    fn a_client_that_leaves_before_the_answer_is_no_error() {
        let event = exchange().finish(|| End::ClientGone, || 9, 1_500);
        assert_eq!(event.outcome(), Outcome::ClientDisconnected);
        assert!(event.usage.is_empty());
    }

    #[track_caller]
    fn check_estimate(body: &str, ended: bool, expected: Option<[u64; 2]>) {
        let mut exchange = exchange();
        exchange.answer(200, b"text/event-stream", false);
        exchange.body(body.as_bytes(), ended, || 1_001);
        let event = exchange.finish(|| End::ClientGone, || 9, 1_002);
        let usage = &event.usage[0];
        let found = (usage.source() == UsageSource::Estimated)
            .then_some([usage.input_tokens, usage.output_tokens]);
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn what_a_stream_does_not_report_is_estimated() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
        check_estimate(&format!("{text}{text}data: [DONE]\n\n"), true, Some([3, 3]));
        check_estimate(text, false, Some([3, 2]));
        check_estimate("data: [DONE]\n\n", true, Some([3, 0]));
        check_estimate("", false, None);
        check_estimate(STREAM, true, None);
    }
}
