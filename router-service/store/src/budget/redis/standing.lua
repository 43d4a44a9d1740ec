-- Nothing more is asked.

return answer(0, 0)
