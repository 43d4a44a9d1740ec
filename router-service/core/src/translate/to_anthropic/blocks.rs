//! The content blocks of Anthropic's stream: one is open at a time, and the
//! next opens when that one is closed for good.
//!
//! OpenAI's pieces of several tool calls may interleave, though OpenAI itself
//! sends one call after the other. So a piece of another block than the open
//! one opens its own at once where the open one is whole, which a call is once
//! its arguments are a whole JSON object; else it waits.

use super::super::write::{put, quoted};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// The tool call at that position.
    Call(u64),
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    /// Identifier and name of a call.
    id: String,
    name: String,
    /// What came and was not written yet.
    waiting: String,
    arguments: Arguments,
}

/// Blocks of one message.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    open: Option<Block>,
    /// In order of arrival.
    waiting: Vec<Block>,
    /// Positions of the calls that came.
    calls: Vec<u64>,
    /// Blocks that were closed.
    closed: u64,
}

impl Blocks {
    /// Whether that tool call has begun.
    pub fn knows(&self, call: u64) -> bool {
        self.calls.contains(&call)
    }

    /// A tool call begins.
    pub fn call(&mut self, call: u64, id: &str, name: &str, out: &mut Vec<u8>) {
        self.calls.push(call);
        self.begin(Kind::Call(call), id, name, out);
    }

    /// More of a block's text or arguments. Of a call that was closed, because
    /// its arguments were whole, nothing can come that means anything.
    pub fn push(&mut self, kind: &Kind, piece: &str, out: &mut Vec<u8>) {
        match &mut self.open {
            Some(open) if open.kind == *kind => {
                open.write(self.closed, piece, out);
                self.settle(out);
                return;
            }
            _ => {}
        }
        if *kind == Kind::Text && self.waiting.last().is_none_or(|w| w.kind != Kind::Text) {
            self.begin(Kind::Text, "", "", out);
        }
        if let Some(waiting) = self.waiting.iter_mut().rev().find(|w| w.kind == *kind) {
            waiting.waiting.push_str(piece);
        } else if let Some(open) = self.open.as_mut().filter(|o| o.kind == *kind) {
            open.write(self.closed, piece, out);
        }
    }

    /// No more of any block will come.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        for block in std::mem::take(&mut self.waiting) {
            self.start(block, out);
            self.close(out);
        }
    }

    fn begin(&mut self, kind: Kind, id: &str, name: &str, out: &mut Vec<u8>) {
        self.waiting.push(Block {
            kind,
            id: id.to_owned(),
            name: name.to_owned(),
            waiting: String::new(),
            arguments: Arguments::default(),
        });
        self.settle(out);
    }

    /// Opens those that wait, as far as the open one is whole.
    fn settle(&mut self, out: &mut Vec<u8>) {
        while !self.waiting.is_empty() && self.open.as_ref().is_none_or(Block::is_whole) {
            self.close(out);
            let next = self.waiting.remove(0);
            self.start(next, out);
        }
    }

    fn start(&mut self, mut block: Block, out: &mut Vec<u8>) {
        let index = self.closed.to_string();
        put(
            out,
            &[
                b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
                index.as_bytes(),
                b",\"content_block\":",
            ],
        );
        match block.kind {
            Kind::Text => out.extend_from_slice(b"{\"type\":\"text\",\"text\":\"\"}"),
            Kind::Call(_) => put(
                out,
                &[
                    b"{\"type\":\"tool_use\",\"id\":",
                    quoted(&block.id).as_bytes(),
                    b",\"name\":",
                    quoted(&block.name).as_bytes(),
                    b",\"input\":{}}",
                ],
            ),
        }
        out.extend_from_slice(b"}\n\n");
        let waited = std::mem::take(&mut block.waiting);
        if !waited.is_empty() {
            block.write(self.closed, &waited, out);
        }
        self.open = Some(block);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_none() {
            return;
        }
        put(
            out,
            &[
                b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
                self.closed.to_string().as_bytes(),
                b"}\n\n",
            ],
        );
        self.closed = self.closed.saturating_add(1);
    }
}

impl Block {
    fn is_whole(&self) -> bool {
        self.kind == Kind::Text || self.arguments.whole
    }

    fn write(&mut self, index: u64, piece: &str, out: &mut Vec<u8>) {
        let member: &[u8] = match self.kind {
            Kind::Text => b",\"delta\":{\"type\":\"text_delta\",\"text\":",
            Kind::Call(_) => {
                self.arguments.feed(piece);
                b",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":"
            }
        };
        put(
            out,
            &[
                b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
                index.to_string().as_bytes(),
                member,
                quoted(piece).as_bytes(),
                b"}}\n\n",
            ],
        );
    }
}

/// Tells when the arguments of a call are a whole JSON object.
#[derive(Debug, Default)]
struct Arguments {
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
}

impl Arguments {
    fn feed(&mut self, piece: &str) {
        for byte in piece.bytes() {
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.whole |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}
