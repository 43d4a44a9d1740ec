//! The one helper of golden texts.

use weir_router_core::translate::Target;

pub const OPENAI: Target<'static> = Target {
    model: "gpt-4.1",
    max_tokens: Some(512),
    compatible: false,
};

pub const COMPATIBLE: Target<'static> = Target {
    model: "qwen3",
    max_tokens: Some(512),
    compatible: true,
};

pub const ANTHROPIC: Target<'static> = Target {
    model: "claude-sonnet-4-5",
    max_tokens: Some(512),
    compatible: false,
};

/// Compares input and output with the file of that name.
#[track_caller]
pub fn check(name: &str, input: &str, output: &str) {
    let text = format!("{}\n\n=== becomes ===\n\n{}", input.trim(), output.trim());
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(name, text);
    });
}

/// The same JSON with one member a line, in its own order.
pub fn pretty(json: &[u8]) -> String {
    let _: serde::de::IgnoredAny = serde_json::from_slice(json).unwrap();
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0, false, false);
    let mut chars = std::str::from_utf8(json).unwrap().chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
            continue;
        }
        match c {
            '"' => in_string = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            c if c.is_whitespace() => continue,
            _ => {}
        }
        let empty = matches!((out.chars().last(), c), (Some('{'), '}') | (Some('['), ']'));
        if matches!(c, '}' | ']') && !empty {
            line(&mut out, depth);
        }
        out.push(c);
        match c {
            ':' => out.push(' '),
            ',' => line(&mut out, depth),
            '{' | '[' if !matches!(chars.peek(), Some('}' | ']')) => line(&mut out, depth),
            _ => {}
        }
    }
    out
}
