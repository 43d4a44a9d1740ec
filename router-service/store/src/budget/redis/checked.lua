-- Where data was lost, the router is told so and nothing else is done; what it has
-- booked, as far as it knows, is there before anything is decided.

if is_stale() then
  return { STALE, 0, line }
end
if known_plus > 0 or known_minus > 0 or known_told > 0 then
  heal(account(month), known_plus, known_minus, known_told)
end

