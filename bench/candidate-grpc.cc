// SPDX-License-Identifier: Apache-2.0
//
// Candidate gRPC: C++, asynchronous on both sides (the fastest way gRPC's own benchmarks know), over a unix socket, one
// completion queue and one thread of ours each. Generic calls of ByteBuffers: no generated code, and no protobuf around
// the payload.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "bench/candidate.h"

namespace {

const char method[] = "/bench.Echo/Echo";

std::string address_of(const Meeting *meeting) {
        return std::string("unix:") + meeting->path;
}

// ---- server

// One call being served, and then the next one: request, read, answer.
class Serving {
public:
        Serving(grpc::AsyncGenericService *service, grpc::ServerCompletionQueue *queue, size_t answer)
            : service_(service), queue_(queue), answer_(answer) {
                request();
        }

        // step() - what was begun is done; @ok false: the server shuts down, or the client has gone.
        void step(bool ok) {
                if (state_ == State::requested && ok) {
                        state_ = State::reading;
                        stream_->Read(&buffer_, this);
                } else if (state_ == State::reading && ok) {
                        grpc::Slice slice;

                        if (buffer_.Length() > answer_) {
                                if (!buffer_.TrySingleSlice(&slice).ok() && !buffer_.DumpToSingleSlice(&slice).ok())
                                        die("a request that cannot be read");
                                slice = grpc::Slice(slice.begin(), answer_);
                                buffer_ = grpc::ByteBuffer(&slice, 1);
                        }
                        state_ = State::answered;
                        stream_->WriteAndFinish(buffer_, grpc::WriteOptions(), grpc::Status::OK, this);
                } else if (ok) {
                        request();
                }
        }

private:
        enum class State { requested, reading, answered };

        void request() {
                context_ = std::make_unique<grpc::GenericServerContext>();
                stream_ = std::make_unique<grpc::GenericServerAsyncReaderWriter>(context_.get());
                state_ = State::requested;
                service_->RequestCall(context_.get(), stream_.get(), queue_, queue_, this);
        }

        grpc::AsyncGenericService *service_;
        grpc::ServerCompletionQueue *queue_;
        size_t answer_;
        State state_ = State::requested;
        std::unique_ptr<grpc::GenericServerContext> context_;
        std::unique_ptr<grpc::GenericServerAsyncReaderWriter> stream_;
        grpc::ByteBuffer buffer_;
};

void serve(const CandidateOptions *options, const Meeting *meeting) {
        grpc::AsyncGenericService service;
        grpc::ServerBuilder builder;

        builder.AddListeningPort(address_of(meeting), grpc::InsecureServerCredentials());
        builder.RegisterAsyncGenericService(&service);
        builder.SetMaxReceiveMessageSize(-1);
        builder.SetMaxSendMessageSize(-1);
        auto queue = builder.AddCompletionQueue();
        auto server = builder.BuildAndStart();

        if (!server)
                die("gRPC cannot listen at %s", meeting->path);
        std::vector<std::unique_ptr<Serving>> servings;
        for (size_t i = 0; i < options->window; i++)
                servings.push_back(std::make_unique<Serving>(&service, queue.get(), options->answer));
        std::thread([meeting] {
                meeting_await_end(meeting);
                _exit(EXIT_SUCCESS); // nothing is worth an orderly end
        }).detach();
        meeting_announce(meeting);
        void *tag;
        bool ok;
        while (queue->Next(&tag, &ok))
                static_cast<Serving *>(tag)->step(ok);
}

// ---- client

struct SlotCall {
        size_t slot;
        std::unique_ptr<grpc::ClientContext> context;
        std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
        grpc::ByteBuffer answer;
        grpc::Status status;
};

struct Client {
        std::unique_ptr<grpc::GenericStub> stub;
        grpc::CompletionQueue queue;
        std::vector<SlotCall> calls;
        Exchange *exchange;
};

Client *client;

void send_call(SlotCall &call) {
        if (!exchange_next(client->exchange, call.slot))
                return;
        grpc::Slice slice(client->exchange->payload, client->exchange->options->size, grpc::Slice::STATIC_SLICE);
        grpc::ByteBuffer request(&slice, 1);
        call.context = std::make_unique<grpc::ClientContext>();
        call.reader = client->stub->PrepareUnaryCall(call.context.get(), method, request, &client->queue);
        call.reader->StartCall();
        call.reader->Finish(&call.answer, &call.status, &call);
}

void client_open(const CandidateOptions *options, Meeting *meeting) {
        grpc::ChannelArguments arguments;

        meeting_await(meeting);
        arguments.SetMaxReceiveMessageSize(-1);
        arguments.SetMaxSendMessageSize(-1);
        client = new Client;
        client->stub = std::make_unique<grpc::GenericStub>(
                grpc::CreateCustomChannel(address_of(meeting), grpc::InsecureChannelCredentials(), arguments));
        client->calls.resize(options->window);
        for (size_t slot = 0; slot < options->window; slot++)
                client->calls[slot].slot = slot;
}

void client_run(Exchange *exchange) {
        void *tag;
        bool ok;

        client->exchange = exchange;
        for (auto &call : client->calls)
                send_call(call);
        while (!exchange_is_over(exchange) && client->queue.Next(&tag, &ok)) {
                auto *call = static_cast<SlotCall *>(tag);

                if (!ok || !call->status.ok())
                        die("a call failed: %s", call->status.error_message().c_str());
                exchange_answered(exchange, call->slot, call->answer.Length());
                send_call(*call);
        }
}

void client_close() {
}

const char *version() {
        static std::string text = "gRPC " + grpc::Version();

        return text.c_str();
}

} // namespace

int main(int argc, char **argv) {
        static const Candidate candidate = { "grpc", version, serve, client_open, client_run, client_close };

        return candidate_main(&candidate, argc, argv);
}
