# Follows killmails over Phoenix channels and loses nothing: every live killmail says its place, and a join that names one goes on there.
#
#     elixir channels.exs ws://localhost:4004 30000142,30002187

Mix.install([{:slipstream, "~> 1.2"}])

defmodule Follower do
  use Slipstream, restart: :permanent

  @topic "killmails:lobby"
  @preload %{limit_per_system: 5, since_hours: 24, delivery_interval_ms: 0}

  def start_link({server, systems}), do: Slipstream.start_link(__MODULE__, {server, systems})

  @impl Slipstream
  def init({server, systems}) do
    uri = "#{server}/socket/websocket?client_identifier=example"
    # Waits between attempts to connect and to join, milliseconds.
    waits = [500, 1_000, 2_000, 5_000, 10_000, 30_000]
    socket = new_socket() |> assign(systems: systems, place: nil, opened: nil)
    connect(socket, uri: uri, reconnect_after_msec: waits, rejoin_after_msec: waits)
  end

  @impl Slipstream
  def handle_connect(socket), do: {:ok, join(socket, @topic, wanted(socket.assigns))}

  @impl Slipstream
  def handle_join(@topic, %{"gap" => gap}, socket) when gap != nil do
    IO.puts("gap: #{inspect(gap)}")
    {:ok, assign(socket, place: gap["resumed_at"])}
  end

  # Where the channel begins.
  def handle_join(@topic, reply, socket), do: {:ok, assign(socket, opened: reply["event_id"])}

  @impl Slipstream
  def handle_message(@topic, "killmail_update", update, socket) do
    when_ = if update["preload"], do: "past", else: "live"

    for killmail <- update["killmails"] do
      IO.puts("#{when_} #{killmail["killmail_id"]} #{killmail["kill_time"]} in #{killmail["system_id"]}: #{killmail["victim"]["ship_name"]}")
    end

    {:ok, assign(socket, place: update["event_id"] || socket.assigns.place)}
  end

  # All of the past is here: from now on the place where the channel was opened will do.
  def handle_message(@topic, "preload_complete", _complete, socket) do
    {:ok, assign(socket, place: socket.assigns.place || socket.assigns.opened)}
  end

  def handle_message(@topic, "kill_count_update", %{"system_id" => system, "count" => count}, socket) do
    IO.puts("count of #{system}: #{count} in 24 h")
    {:ok, socket}
  end

  def handle_message(@topic, _event, _payload, socket), do: {:ok, socket}

  @impl Slipstream
  def handle_disconnect(_reason, socket), do: reconnect(socket)

  @impl Slipstream
  def handle_topic_close(topic, _reason, socket), do: rejoin(socket, topic, wanted(socket.assigns))

  defp wanted(%{systems: systems, place: nil}), do: %{systems: systems, preload: @preload}
  defp wanted(%{systems: systems, place: place}), do: %{systems: systems, resume_from: place}
end

[server, systems] =
  case System.argv() do
    [server, systems] -> [server, systems]
    _ -> ["ws://localhost:4004", "30000142"]
  end

systems = systems |> String.split(",") |> Enum.map(&String.to_integer/1)
{:ok, _} = Supervisor.start_link([{Follower, {server, systems}}], strategy: :one_for_one)
Process.sleep(:infinity)
