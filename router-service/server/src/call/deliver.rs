//! An event stream on its way to the client, from its first content to its end.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_router_core::{
    health::Fault,
    refusal::Refusal,
    relay::{self, StreamRelay},
};
use weir_wire::proto::usage::Outcome;

use super::{
    Answer, AnswerBody, Answered, Call, Ended, Going,
    refusals::{late, provider_failed, stopped},
    start::{Begun, answer_headers},
};
use crate::{
    client::{Client, Next, Patience},
    money::{Hold, Live},
};

/// Chunks that wait for a slow client before the provider is read no further.
const CHUNKS_WAITING: usize = 4;

/// How long after its end a provider's answer is read on, so that its connection
/// can be used again.
const TAIL: std::time::Duration = std::time::Duration::from_millis(200);

/// Bytes of text to a token, for the bound on what is read of a stream whose client
/// is gone.
const BYTES_PER_TOKEN: usize = 4;

impl Call {
    /// Gives the stream to the client as it comes.
    pub(super) async fn deliver_stream(
        &self,
        mut going: Going,
        begun: Begun,
        hold: &mut Hold,
        answer: Answered,
    ) -> Ended {
        let Begun {
            mut response,
            mut relay,
            held,
            ended,
        } = begun;
        let passage = self.passage(going.candidate);
        let first = Some(self.exchange.millis());
        let status = response.status();
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING);
        let mut headers = answer_headers(&passage, &response);
        self.show(&mut headers, &going, hold);
        let gone = answer
            .send(Ok(Answer {
                status,
                headers,
                body: AnswerBody::Stream(ReceiverStream::new(receiver)),
            }))
            .is_err();
        let decision = self.decision(going.candidate);
        let patience = Patience {
            deadline: self.deadline(decision.stream_total),
            drain: self.way_out.drain,
            stopping: self.stopping.clone(),
        };
        let mut client = Client::new(chunks, gone, patience);
        hold.live.came(relay.seen().output_bytes);
        let (last, broken) = match ended {
            true => (held, None),
            false => {
                client.pass(held).await;
                self.go_on(&mut client, &mut relay, &mut response, &hold.live)
                    .await
            }
        };
        let seen = relay.seen();
        let outcome = if client.is_gone() {
            Outcome::ClientDisconnected
        } else if broken.is_some() || seen.error {
            Outcome::UpstreamError
        } else {
            Outcome::Completed
        };
        self.made(&mut going, seen, outcome, hold);
        let ended = Ended {
            outcome,
            status: status.as_u16(),
            first_token_ms: first,
        };
        self.tell(hold, ended).await;
        client.pass(last).await;
        let seen = relay.seen();
        let is_fault = seen.error || broken.as_ref().is_some_and(|r| r.status != 503);
        going.end(match is_fault {
            true => Some(Fault::BrokenStream),
            false => None,
        });
        match broken {
            Some(refusal) => {
                let event = relay::error_event(passage.to, &refusal.error, refusal.status);
                client.abort(event).await;
            }
            // The error went to the client already, as it came or translated; its
            // stream does not end as one that is complete.
            None if relay.seen().error => client.abort(Vec::new()).await,
            None if client.is_gone() => {}
            None => {
                drop(client);
                let _ = tokio::time::timeout(TAIL, response.chunk()).await;
            }
        }
        ended
    }

    /// Reads on to the end; gives what of it the client has not got yet, or why there
    /// was none.
    async fn go_on(
        &self,
        client: &mut Client,
        relay: &mut StreamRelay,
        response: &mut reqwest::Response,
        live: &Live,
    ) -> (Vec<u8>, Option<Refusal>) {
        let no_end = |why| (Vec::new(), why);
        let mut left_at = None;
        loop {
            match client.next(response).await {
                Next::Chunk(chunk) => {
                    let Ok(pass) = relay.feed(&chunk) else {
                        return no_end(Some(provider_failed()));
                    };
                    let seen = relay.seen();
                    live.came(seen.output_bytes);
                    if seen.done {
                        return (pass, None);
                    }
                    client.pass(pass).await;
                    if client.is_gone() {
                        let left_at = *left_at.get_or_insert(seen.output_bytes);
                        let since = seen.output_bytes.saturating_sub(left_at);
                        if since / BYTES_PER_TOKEN >= self.way_out.tokens {
                            return no_end(None);
                        }
                    }
                }
                Next::End if relay.seen().error => return no_end(None),
                Next::End | Next::Broken => return no_end(Some(provider_failed())),
                Next::Drained => return no_end(None),
                Next::Late => {
                    let time = self.decision(0).stream_total;
                    return no_end(Some(late(&self.terms.plan, time)));
                }
                Next::Stopping => return no_end(Some(stopped())),
            }
        }
    }
}
