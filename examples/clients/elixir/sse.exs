# Follows an event stream and loses nothing: it keeps the last event id and goes on there after any break.
#
#     elixir sse.exs 'http://localhost:4004/api/v1/kills/stream/enhanced?system_ids=30000142&preload_days=1'

Mix.install([{:req, "~> 0.5"}, {:jason, "~> 1.4"}])

defmodule Follower do
  @first_wait 500
  @longest_wait 30_000

  # `:place`, `:rest` (a block still incomplete) and `:wait` outlive a connection; they are kept in this process's dictionary, which the
  # function that takes the body piece by piece shares.
  def follow(url) do
    Process.put(:rest, "")
    headers = for place <- List.wrap(Process.get(:place)), do: {"last-event-id", place}
    # Streams are never silent for long.
    answer = Req.get(url, headers: [{"accept", "text/event-stream"} | headers], into: &take/2, receive_timeout: 90_000, retry: false)

    case answer do
      {:ok, %{status: status}} when status in 400..499 and status != 429 -> raise "refused: #{status}"
      {:ok, %{status: status}} -> IO.puts(:stderr, "ended with #{status}")
      {:error, error} -> IO.puts(:stderr, "broken: #{Exception.message(error)}")
    end

    wait = Process.get(:wait, @first_wait)
    Process.sleep(wait)
    Process.put(:wait, min(wait * 2, @longest_wait))
    follow(url)
  end

  defp take({:data, data}, {request, %{status: 200} = response}) do
    {blocks, [rest]} = (Process.get(:rest) <> data) |> String.split("\n\n") |> Enum.split(-1)
    Process.put(:rest, rest)
    Enum.each(blocks, &block/1)
    {:cont, {request, response}}
  end

  defp take({:data, _refusal}, {request, response}), do: {:cont, {request, response}}

  defp block(text) do
    fields = for line <- String.split(text, "\n"), [name, value] <- [String.split(line, ": ", parts: 2)], into: %{}, do: {name, value}
    if data = fields["data"], do: event(fields["event"], Jason.decode!(data))
    if place = fields["id"], do: Process.put(:place, place)
    Process.put(:wait, @first_wait)
  end

  defp event("batch", batch), do: Enum.each(batch["kills"], &told("past", &1))
  defp event(name, killmail) when name in [nil, "killmail"], do: told("live", killmail)
  defp event("heartbeat", _data), do: :ok
  defp event(name, data), do: IO.puts("#{name}: #{inspect(data)}")

  defp told(when_, killmail) do
    IO.puts("#{when_} #{killmail["killmail_id"]} #{killmail["kill_time"]} in #{killmail["system_id"]}: #{killmail["victim"]["ship_name"]}")
  end
end

Follower.follow(List.first(System.argv()) || "http://localhost:4004/api/v1/kills/stream")
