//! From SDK to invoice line.
