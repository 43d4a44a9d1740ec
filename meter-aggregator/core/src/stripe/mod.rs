//! What is said between the aggregator and Stripe, as values: calls, answers and
//! webhooks. The host that carries them is in `meter-aggregator/server`.

mod answer;
mod call;
mod number;
mod object;
mod webhook;

pub use answer::{Answer, Heard, attempt};
pub use call::{Call, MeterEvent, Method, VERSION, WrongId};
pub use object::{
    CoreEvent, ErrorReport, ErrorType, Invoice, InvoiceLine, InvoiceStatus, MeterObject, Page,
    Price, Round, SampleError, Summary, SummaryError, TransformQuantity, Wrong, read,
};
pub use webhook::{
    METER_ERRORS, Notice, NoticeError, SignatureError, TOLERANCE_S, What, parse, sign, verify,
};
